"""A plugin that answers nonsense, dies in any way or hangs is named, and takes nobody down."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgzoo.errors import PluginError
from imgzoo.guard import attempt
from imgzoo.registry import KINDS, fill

ODD = """
class Mute(str):
    def __str__(self): raise RuntimeError('no text')
    __repr__ = __format__ = __str__
MUTE, ENDLESS, DEEP = Mute('x'), [], []
ENDLESS.append(ENDLESS)
for _ in range(5000):
    DEEP = [DEEP]
"""
SOUND = "@hookimpl\ndef imgzoo_losses(): return [ComponentSpec('sound', 'json:loads')]\n"
FIELDS = {
    "imgzoo_models": ("ModelSpec('acme_net', 'json:loads', {})", {
        "aliases": ["['old']", "{'old': 3}", "None", "{'a/b': 'acme_net'}", "{'': 'acme_net'}"],
        "weights": ["None", "[3]", "'text'", "[WeightSpec('a/b')]", "[WeightSpec('t'), WeightSpec('t')]",
                    "[WeightSpec('t', mean=(10**5000,))]"],
        "family": ["None", "3", "'x' * 10**6", "MUTE"],
        "kwargs": ["None", "[1]", "{1: 2}", "{'n': 10**5000}", "{'n': [{'n': MUTE}]}", "{'n': ENDLESS}",
                   "{'n': DEEP}", "{'n': 'x' * 10**6}"],
        "capabilities": ["'export'", "{1}"], "paper": ["3"], "spelling": ["None"],
    }),
    "imgzoo_weights": ("WeightSpec('t', 'net', {})", {
        "num_classes": ["10**5000", "-1", "True", "'7'"], "input_size": ["(3, 224)", "(3, 10**9, 1)", "None"],
        "url": ["None", "MUTE"], "crop_pct": ["'0.9'", "float('nan')"], "kwargs": ["[]"], "license": ["3"],
        "mean": ["None", "'abc'", "(10**5000,) * 3", "()", "(float('inf'),) * 3"],
        "fixed_input_size": ["1"], "test_input_size": ["0"],
    }),
    "imgzoo_optimizers": ("ComponentSpec('acme', 'json:loads', {})", {
        "kwargs": ["None", "{'n': 10**5000}"], "traits": ["['fast']"], "help": ["None", "MUTE"],
    }),
    "imgzoo_commands": ("CommandSpec('acme', 'json:loads', {})", {"help": ["None", "3"]}),
    "imgzoo_health_checks": ("HealthCheck('acme', 'json:loads', {})", {"help": ["b'x'"]}),
}  # fmt: skip
CASES = [
    (hook, call.format(f"{field}={value}"), field)
    for hook, (call, fields) in FIELDS.items()
    for field, values in fields.items()
    for value in values
]


@pytest.mark.parametrize(("hook", "call", "field"), CASES)
def test_a_field_of_the_wrong_type_is_named_with_its_item_and_hook(site, hook, call, field):
    site.add("bad-zoo", "bad", f"{ODD}@hookimpl\ndef {hook}(): return [{call}]\n{SOUND}")
    host = site.manager()
    for kind in KINDS:
        fill(host, kind)
    (plugin,) = host.named("bad")
    assert plugin.state == "error" and hook in plugin.reason and f"{field} must be" in plugin.reason
    assert "acme" in plugin.reason or "net.t" in plugin.reason
    assert fill(host, "losses").names() == ["sound"]  # its other hooks count


@pytest.mark.parametrize(
    "spec",
    ["ModelSpec(3, 'a:b')", "ModelSpec('n', None)", "ModelSpec('n', 'a:b c')", "None", "7", "ModelSpec(MUTE, 'a:b')",
     "ModelSpec('n' * 10**6, 'a:b')"],
)  # fmt: skip
def test_names_and_targets_are_text(site, spec):
    site.add("bad-zoo", "bad", f"{ODD}@hookimpl\ndef imgzoo_models(): return [{spec}]\n")
    host = site.manager()
    assert fill(host, "models").names() == [] and host.named("bad")[0].state == "error"


@pytest.mark.parametrize("name", ["x", "-a", "a b", ""])
def test_a_dataset_that_no_source_could_name_is_refused(site, name):
    site.add("bad-zoo", "bad", f"@hookimpl\ndef imgzoo_datasets(): return [ComponentSpec({name!r}, 'a:b')]\n")
    host = site.manager()
    assert fill(host, "datasets").names() == [] and "no name for a dataset" in host.named("bad")[0].reason


DEATHS = {
    "panic": "class PanicException(BaseException): pass\nraise PanicException('rust')",
    "exit": "raise SystemExit(0)",
    "generator": "raise GeneratorExit",
    "mute": "class Mute(Exception):\n    def __str__(self): raise RuntimeError('no text')\nraise Mute",
    "recursion": "def f(): f()\nf()",
}


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("where", ["import", "hook"])
def test_every_kind_of_death_is_told_by_plugin(site, death, where):
    text = DEATHS[death]
    if where == "hook":
        inner = "\n".join(f"    {line}" for line in text.splitlines())
        text = f"@hookimpl\ndef imgzoo_losses():\n{inner}\n"
    site.add("dead-zoo", "dead", text)
    site.add("sound-zoo", "sound", SOUND)
    host = site.manager()
    assert fill(host, "losses").names() == ["sound"]
    assert host.named("dead")[0].state == "error"
    with pytest.raises(PluginError, match="dead"):
        fill(site.manager(IMGZOO_STRICT="1"), "losses")


@pytest.mark.parametrize("death", ["Panic('rust')", "Mute()", "GeneratorExit()"])
def test_a_command_that_dies_in_any_way_is_one_sentence(site, death):
    kinds = "class Panic(BaseException): pass\nclass Mute(Exception):\n    def __str__(self): raise RuntimeError\n"
    command = f"import click\n@click.command()\ndef die(): raise {death}\n"
    hook = "@hookimpl\ndef imgzoo_commands(): return [CommandSpec('die', __name__ + ':die')]\n"
    site.add("dead-zoo", "dead", kinds + command + hook)
    done = site.run("die")
    assert done.returncode == 1 and done.stderr.startswith(f"imgzoo: {death.partition('(')[0]}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_an_error_without_end_is_told_in_part(site):
    site.add("long-zoo", "long", "raise RuntimeError('x' * 5_000_000)")
    (plugin,) = site.manager().named("long")
    assert plugin.reason.startswith("RuntimeError: xxx") and len(plugin.reason) < 3000


def test_a_slow_plugin_is_named_and_can_be_timed_out(site):
    site.add("slow-zoo", "slow", "import os, time\ntime.sleep(float(os.environ.get('NAP', '2')))\n")
    done = site.run("plugins")
    assert "still waiting for plugin slow (slow-zoo 1.0) (IMGZOO_DISABLE_PLUGINS=slow leaves it out)" in done.stderr
    started = time.monotonic()
    done = site.run("list", "--kind", "loss", IMGZOO_PLUGIN_TIMEOUT="0.2", NAP="60")
    assert done.returncode == 0 and "IMGZOO_PLUGIN_TIMEOUT=0.2" in done.stderr and "slow" in done.stderr
    assert time.monotonic() - started < 50
    assert site.run("list", IMGZOO_PLUGIN_TIMEOUT="soon").returncode == 2


def test_ctrl_c_says_which_plugin_hangs(site):
    site.add("slow-zoo", "slow", "import sys, time\nprint('here', file=sys.stderr, flush=True)\ntime.sleep(60)\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "imgzoo", "list"],
        stderr=subprocess.PIPE,
        text=True,
        env=site.environ(),
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # ignored where the tests run in the background
    )
    assert process.stderr is not None and process.stderr.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130 and "stopped in plugin slow (slow-zoo 1.0)" in said


def test_switches_take_any_spelling_and_say_when_they_match_nothing(site):
    site.add("other-zoo", "other", SOUND)
    done = site.run("list", "--kind", "loss", "--json", IMGZOO_DISABLE_PLUGINS="Other_Zoo, nobody")
    assert "sound" not in {row["name"] for row in json.loads(done.stdout)}
    assert "IMGZOO_DISABLE_PLUGINS names 'nobody', and there is no such plugin" in done.stderr


@pytest.mark.parametrize("stated", ["= (1, 99)", ": tuple[int, int] = (1, 99)", "= 1, 99", "=(\n    1,\n    99,\n)"])
@pytest.mark.parametrize("death", ["from imgzoo.plugin import tomorrow", "raise SystemExit(1)", "def broken("])
def test_a_plugin_for_a_newer_core_is_incompatible_though_its_import_fails(site, stated, death):
    site.add("new-zoo", "new", f"IMGZOO_API {stated}\n{death}\n", header="")
    (plugin,) = site.manager().named("new")
    assert plugin.state == "incompatible" and "1.99" in plugin.reason


@pytest.mark.parametrize("stated", ["(1, 10**5000)", "(1, -1)", "'1.0'", "None"])
def test_an_api_that_is_none_is_incompatible(site, stated):
    site.add("new-zoo", "new", f"IMGZOO_API = {stated}\n", header="")
    (plugin,) = site.manager().named("new")
    assert plugin.state == "incompatible" and "declares no IMGZOO_API" in plugin.reason


def test_a_check_named_like_one_of_imgzoo_does_not_replace_it(site):
    source = "def look(): yield 'error', 'from the plugin'\n@hookimpl\ndef imgzoo_health_checks():\n"
    site.add("a-zoo", "a", source + "    return [HealthCheck('names', __name__ + ':look')]\n")
    rows = json.loads(site.run("doctor", "--json").stdout)
    checks = {row["check"] for row in rows}
    assert {"names", "a/names"} <= checks


def test_every_call_into_a_plugin_is_guarded_in_one_place():
    """`except BaseException` beside a way out for Ctrl-C stands in `attempt` alone."""
    sources = Path(__file__).parents[2].glob("*/src/**/*.py")
    found = [path.name for path in sources if re.search(r"except KeyboardInterrupt:\s+raise", path.read_text())]
    assert found == ["guard.py"]
    for fault in (SystemExit(0), GeneratorExit(), ValueError("x")):
        assert attempt(lambda fault=fault: raising(fault)) == (None, fault)
    assert attempt(lambda: 3) == (3, None)
    with pytest.raises(KeyboardInterrupt):
        attempt(lambda: raising(KeyboardInterrupt()))


def raising(fault):
    raise fault
