"""The `imgzoo` program: lazy, safe to print, one sentence on failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

COMMANDS = """
@hookimpl
def imgzoo_commands():
    return [
        CommandSpec("greet", "cmd_zoo.greet:command", "Say hello to \\x1b[31m somebody."),
        CommandSpec("wreck", "cmd_zoo.wreck:command", "Its module is broken."),
        CommandSpec("odd", "cmd_zoo.greet:number", "It is no command."),
        CommandSpec("fail", "cmd_zoo.greet:fail", "It raises."),
    ]
"""
GREET = """
import click
number = 7

@click.command("greet")
@click.option("--name", default="you")
def command(name):
    "Say hello."
    click.echo(f"hello {name}")

@click.command("fail")
@click.argument("how")
def fail(how):
    from imgzoo.errors import UsageError, WeightsError, PluginError
    errors = {"usage": UsageError("mend it"), "plugin": PluginError("not yours"), "bug": KeyError("inner"),
              "os": FileNotFoundError(2, "No such file", "x.txt"), "click": click.ClickException("of click"),
              "abort": click.Abort(), "escape": UsageError("\\x1b[2Jcleared\\nsecond\\x07")}
    raise errors[how]
"""


@pytest.fixture
def program(site):
    """`imgzoo` with a plugin that brings commands, sound and broken."""
    site.add(
        "cmd-zoo",
        "cmd",
        COMMANDS,
        files={"cmd_zoo/greet.py": GREET, "cmd_zoo/wreck.py": "import there_is_no_such_module"},
    )
    return site.run


def test_a_plugin_command_runs(program):
    done = program("greet", "--name", "zoo")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello zoo\n", "")


def test_help_lists_commands_without_importing_them(program):
    done = program("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "  greet " in done.stdout and "Say hello to somebody." in done.stdout
    assert "  wreck " in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("name", ["wreck", "odd"])
@pytest.mark.parametrize("args", [[], ["--help"], ["--some", "thing"]])
def test_a_broken_command_is_a_stub_that_names_its_plugin(program, name, args):
    done = program(name, *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("imgzoo: plugin 'cmd'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("how", "code", "said"),
    [
        ("usage", 2, "imgzoo: mend it\n"),
        ("plugin", 1, "imgzoo: not yours\n"),
        ("os", 1, "imgzoo: [Errno 2] No such file: 'x.txt'\n"),
        ("click", 1, "imgzoo: of click\n"),
        ("abort", 1, "imgzoo: stopped\n"),
        ("bug", 1, "imgzoo: KeyError: 'inner' (imgzoo --debug shows where)\n"),
        ("escape", 2, "imgzoo: \\x1b[2Jcleared second\\x07\n"),
    ],
)
def test_a_failure_is_one_sentence(program, how, code, said):
    done = program("fail", how)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")


def test_debug_shows_the_traceback(program):
    done = program("--debug", "fail", "usage")
    assert done.returncode != 0
    assert "Traceback" in done.stderr and "UsageError: mend it" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["lsit"], "imgzoo: there is no command 'lsit'; did you mean list"),
        (["list", "--sort", "speed"], "imgzoo: there is no column 'speed'; columns are name,"),
        (["list", "--kind", "layer"], "imgzoo: Invalid value for '--kind': 'layer' is not one of"),
        (["list", "--max-params", "many"], "imgzoo: Invalid value for '--max-params': 'many' is not a valid float"),
        (
            ["list", "--plugin", "no*"],
            "imgzoo: there is no plugin 'no*': put the pattern first, imgzoo list 'no*' --plugin",
        ),
        (
            ["list", "--pareto", "no*"],
            "imgzoo: there is no cost 'no*': put the pattern first, imgzoo list 'no*' --pareto",
        ),
        (["list", "--kind", "loss", "--pretrained"], "imgzoo: --pretrained is for models, not for --kind loss"),
        (["info", "no_such_net"], "imgzoo: there is no model 'no_such_net'"),
        (["info"], "imgzoo: Missing argument 'NAME'. Try 'imgzoo info --help'."),
        (["doctor", "no_such_check"], "imgzoo: there is no check or plugin 'no_such_check': "),
        (["check", "no_such_plugin"], "imgzoo: there is no plugin 'no_such_plugin'; there are core"),
        (["new-plugin", "Bad Name"], "imgzoo: 'Bad Name' is no plugin name"),
        (["new-plugin", "archs-cnn"], "imgzoo: the plugin name 'archs-cnn' belongs to imgzoo"),
        (["new-plugin", "imgzoo-layers"], "imgzoo: the plugin name 'layers' belongs to imgzoo"),
        (["--nope"], "imgzoo: No such option '--nope'"),
    ],
)
def test_a_wrong_use_is_one_sentence_and_code_2(program, args, said):
    done = program(*args)
    assert done.returncode == 2
    assert done.stderr.startswith(said), done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stdout == ""


@pytest.mark.parametrize(
    ("command", "dist"),
    [("train", "imgzoo-train"), ("predict", "imgzoo-train"), ("data", "imgzoo-data"), ("schedule", "imgzoo-optim")],
)
def test_a_command_whose_distribution_is_missing_says_what_to_install(site, use_plugins, command, dist, capsys):
    from imgzoo.cli.app import run

    use_plugins(site.manager())
    with pytest.raises(SystemExit) as stopped:
        run([command, "resnet50"])
    assert stopped.value.code == 2
    said = (
        f"imgzoo: there is no command '{command}'; {dist} brings such names: pip install {dist}. Try 'imgzoo --help'.\n"
    )
    assert capsys.readouterr().err == said


def complete(site, words: str) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(site.path), "_IMGZOO_COMPLETE": "bash_complete"}
    env |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run([sys.executable, "-m", "imgzoo"], env=env, capture_output=True, text=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_knows_commands_options_and_names_and_imports_no_command(program, site):
    assert complete(site, "imgzoo gr") == ["greet"]
    assert complete(site, "imgzoo wr") == ["wreck"]
    assert complete(site, "imgzoo --no") == ["--no-plugins"]
    assert complete(site, "imgzoo list --pret") == ["--pretrained"]
    site.add("net-zoo", "net", "@hookimpl\ndef imgzoo_models(): return [ModelSpec('zebra_net', 'a.b:c')]")
    assert complete(site, "imgzoo info zeb") == ["zebra_net"]


NETS = {
    "family": "nets",
    "target": "net_zoo.net:Net",
    "defaults": {"license": "Apache-2.0"},
    "models": {
        "net_small": {"depth": 1, "weights": {"a": {}, "b": {"license": "CC-BY-NC-4.0", "input_size": 256}}},
        "net_large": {"depth": 9, "weights": {"a": {"num_classes": 21841}}},
        "net_bare": {"depth": 2},
    },
}
RESULTS = {
    "net_small": {
        "params": 5_300_000,
        "cost": [[224, 0.4, 6.7], [256, 0.6, 8.8]],
        "weights": {"a": {"imagenet": [77.1, 93.0, 224, 0.9, "bicubic"]}, "b": {"imagenet": [78.2, 94, 256, 1, "x"]}},
    },
    "net_large": {"params": 88_000_000, "cost": [[224, 15.4, 28.0]]},
}


@pytest.fixture
def nets(site):
    site.add("net-zoo", "net", "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)",
             files={"net_zoo/catalog/nets.json": json.dumps(NETS),
                    "net_zoo/catalog/results/nets.json": json.dumps(RESULTS)})  # fmt: skip
    return lambda *args: site.run(*args, IMGZOO_PLUGINS="net")


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        ([], ["net_bare", "net_large", "net_small"]),
        (["*_s*"], ["net_small"]),
        (["--plugin"], ["name       plugin", "net_bare   net", "net_large  net", "net_small  net"]),
        (["--plugin", "net-zoo", "--exclude", "*a*e"], ["name       plugin", "net_small  net"]),
        (["--pretrained"], ["net_large.a", "net_small.a", "net_small.b"]),
        (["--max-params", "10"], ["name       params", "net_small    5.3M"]),
        (["--sort", "-params"], ["name       params", "net_large   88.0M", "net_small    5.3M", "net_bare"]),
        (["--license", "permissive"], ["name         license", "net_large.a  Apache-2.0", "net_small.a  Apache-2.0"]),
        (["--min-top1", "78"], ["name         top1", "net_small.b  78.2"]),
        (["--family", "other"], []),
        (["--pareto"], ["name         gmacs  top1", "net_small.a    0.4  77.1", "net_small.b    0.6  78.2"]),
        (["net_small.*"], ["net_small.a", "net_small.b"]),
    ],
)
def test_list(nets, args, lines):
    done = nets("list", *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == lines


def test_list_as_json_has_every_column(nets):
    rows = json.loads(nets("list", "net_small", "--json").stdout)
    assert rows == [
        {
            "name": "net_small",
            "plugin": "net",
            "family": "nets",
            "size": 224,
            "params": 5300000,
            "gmacs": 0.4,
            "macts": 6.7,
        }
    ]
    rows = json.loads(nets("list", "net_small.b", "--json").stdout)
    assert {key: rows[0][key] for key in ("name", "license", "size", "gmacs", "top1", "v2")} == {
        "name": "net_small.b", "license": "CC-BY-NC-4.0", "size": 256, "gmacs": 0.6, "top1": 78.2, "v2": None,
    }  # fmt: skip


def test_info_shows_what_is_known(nets):
    shown = nets("info", "net_small").stdout
    for fact in ("net_zoo.net:Net", "depth=1", "5300000", "net-zoo 1.0", "224px: 0.4 GMACs", "CC-BY-NC-4.0", "77.1"):
        assert fact in shown
    facts = json.loads(nets("info", "net_small.b", "--json").stdout)
    assert [row["name"] for row in facts["weights"]] == ["net_small.b"]
    assert facts["weights"][0]["hf_hub_id"] == "timm/net_small.b"


def test_components_are_listed_with_their_help(site):
    site.add(
        "opt-zoo", "opt", "@hookimpl\ndef imgzoo_optimizers(): return [ComponentSpec('zig', 'a.b:c', help='Zigzag')]"
    )
    assert site.run("list", "--kind", "optimizer", "zig").stdout == "name  help\nzig   Zigzag\n"
    assert "Zigzag" in site.run("info", "--kind", "optimizer", "zig").stdout
    row = json.loads(site.run("list", "--kind", "optimizer", "--plugin", "opt", "--json").stdout)[0]
    assert row == {"name": "zig", "plugin": "opt", "help": "Zigzag", "paper": "", "target": "a.b:c"}


def test_a_plugin_lists_everything_it_brings(site):
    site.add("all-zoo", "all", """
        @hookimpl
        def imgzoo_models(): return [ModelSpec('all_net', 'a.b:c')]
        @hookimpl
        def imgzoo_losses(): return [ComponentSpec('all_loss', 'a.b:c', help='A loss')]
        @hookimpl
        def imgzoo_commands(): return [CommandSpec('all-do', 'a.b:c', 'Do it')]
        @hookimpl
        def imgzoo_health_checks(): return [HealthCheck('all-well', 'a.b:c')]
        """)  # fmt: skip
    assert site.run("list", "--plugin", "all").stdout.splitlines() == [
        "name     plugin",
        "all_net  all",
        "name      kind          help",
        "all_loss  loss          A loss",
        "all-do    command       Do it",
        "all-well  health-check",
    ]
    rows = json.loads(site.run("list", "--plugin", "all", "--json").stdout)
    assert [row.get("kind", "model") for row in rows] == ["model", "loss", "command", "health-check"]
    for kind in ("command", "health-check"):
        assert "all-" in site.run("list", "--kind", kind).stdout


def test_a_closed_pipe_is_no_traceback(nets):
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = f"{sys.executable} -m imgzoo list | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=env, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_check_runs_the_conformance_kit_and_fails_when_a_check_does(site, use_plugins, monkeypatch, capsys):
    import types

    from imgzoo.cli.app import run
    from imgzoo.testing import process

    calls = []

    def check_in_process(name, *, tiers, sample, examples, callback):
        calls.append((name, tiers, sample))
        rows = [
            ("shape", "net", "passed", ""),
            ("grad", "net", "failed", "no gradient"),
            ("onnx", "net", "skipped", ""),
        ]
        return [types.SimpleNamespace(**dict(zip(("name", "subject", "status", "message"), row))) for row in rows]

    monkeypatch.setattr(process, "check_in_process", check_in_process)
    site.add("some-zoo", "some")
    use_plugins(site.manager())
    with pytest.raises(SystemExit) as stopped:
        run(["check", "some", "--tier", "static", "--sample", "3"])
    assert stopped.value.code == 1
    assert calls == [("some", ("static",), 3)]
    assert capsys.readouterr().out.splitlines() == [
        "failed  net  grad  no gradient",
        "some: 1 passed, 1 failed, 1 skipped",
    ]


@pytest.mark.parametrize("module", ["imgzoo", "imgzoo_train"])
def test_running_as_a_module_takes_nothing_from_the_working_directory(tmp_path, module):
    for name, text in (
        ("METADATA", "Name: planted\nVersion: 1\n"),
        ("entry_points.txt", "[imgzoo.plugins]\nplanted = planted\n"),
    ):
        folder = tmp_path / "planted-1.dist-info"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "planted.py").write_text("open('ran', 'w')")
    done = subprocess.run([sys.executable, "-m", module, "plugins"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "planted" not in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()


def test_everything_that_a_plugin_brings_is_listed_by_the_name_to_use(site):
    site.add("more-zoo", "more", """
        @hookimpl
        def imgzoo_weights():
            return [WeightSpec(tag, arch, url="https://x/y.pth", license="MIT")
                    for tag, arch in (("more_in1k", "net_small"), ("own", "net_small"))]
        @hookimpl
        def imgzoo_losses(): return [ComponentSpec("focal", "json:loads"), ComponentSpec("clear", "json:loads")]
        """)  # fmt: skip
    site.add(
        "net-zoo",
        "net",
        """
        @hookimpl
        def imgzoo_models():
            return [ModelSpec("net_small", "json:loads", weights=(WeightSpec("own", url="https://x/z.pth"),))]
        @hookimpl
        def imgzoo_losses(): return [ComponentSpec("focal", "json:loads")]
        """,
    )
    rows = [line.split() for line in site.run("list", "--plugin", "more").stdout.splitlines()[1:]]
    assert rows == [["clear", "loss"], ["more/focal", "loss"], ["net_small.more_in1k", "weights"],
                    ["more/net_small.own", "weights"]]  # fmt: skip
    told = json.loads(site.run("list", "--plugin", "more", "--json", "*small*").stdout)
    assert [row["name"] for row in told] == ["net_small.more_in1k", "more/net_small.own"]


def test_what_is_left_at_the_end_is_not_searched_for_cycles():
    watched = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000))"
    done = subprocess.run([sys.executable, "-c", f"{watched}\nfrom imgzoo.cli import main\nmain()", "--version"],
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "True", done.stderr
