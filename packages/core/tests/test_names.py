"""Names: who owns a short one, what a qualified one means, and what an unknown one answers."""

from __future__ import annotations

import pytest

from imgzoo import models
from imgzoo.discovery.homes import STEMS, home
from imgzoo.errors import AmbiguousNameError, ImgzooDeprecationWarning, UnknownNameError, UsageError
from imgzoo.loading import locate
from imgzoo.models import get_spec, is_model, list_models, list_weights, resolve_model
from imgzoo.registry import Registry, fill, prefer, register, registry

CNN = """
@hookimpl
def imgzoo_models():
    return [
        ModelSpec("resnet50", "pkg.mod:a", weights=(WeightSpec("a1", "resnet50", hf_hub_id="o/r"),),
                  aliases={"old_resnet50": "resnet50.a1"}),
        ModelSpec("resnet101", "pkg.mod:a"),
    ]
@hookimpl
def imgzoo_commands(): return [CommandSpec("train", "pkg.mod:ours")]
"""
ACME = """
@hookimpl
def imgzoo_models():
    return [ModelSpec("resnet50", "pkg.mod:theirs"), ModelSpec("acme_net", "pkg.mod:b"),
            ModelSpec("old_resnet50", "pkg.mod:b")]
@hookimpl
def imgzoo_weights():
    return [WeightSpec("acme1", "resnet50", url="https://x/y"), WeightSpec("a1", "archs-cnn/resnet50", url="https://x/z"),
            WeightSpec("acme1", "nobody")]
@hookimpl
def imgzoo_commands(): return [CommandSpec("train", "pkg.mod:theirs"), CommandSpec("list", "pkg.mod:theirs")]
"""
ZETA = """
@hookimpl
def imgzoo_models(): return [ModelSpec("acme_net", "pkg.mod:z")]
@hookimpl
def imgzoo_weights(): return [WeightSpec("acme1", "resnet50", url="https://z/y")]
"""


@pytest.fixture
def world(site, use_plugins):
    """imgzoo's own plugin with ResNets, and two third parties that reuse its names and each other's."""
    site.add("imgzoo-archs-cnn", "archs-cnn", CNN)
    site.add("acme-zoo", "acme", ACME)
    site.add("zeta-zoo", "zeta", ZETA)

    def start(**environ):
        host = site.manager(**environ)
        use_plugins(host)
        return host

    return start


def test_first_party_names_cannot_be_shadowed(world):
    world()
    assert get_spec("resnet50").target == "pkg.mod:a"
    assert get_spec("acme/resnet50").target == "pkg.mod:theirs"
    assert registry("commands").resolve("train").target == "pkg.mod:ours"
    assert registry("commands").resolve("list").plugin == "core"


def test_a_deprecated_name_of_imgzoo_cannot_be_shadowed_either(world):
    world()
    with pytest.warns(ImgzooDeprecationWarning, match="'old_resnet50' is deprecated: say 'resnet50.a1'"):
        spec, weights = resolve_model("old_resnet50")
    assert (spec.name, spec.plugin, weights.tag) == ("resnet50", "archs-cnn", "a1")
    assert get_spec("acme/old_resnet50").target == "pkg.mod:b"
    assert is_model("old_resnet50")


def test_a_clash_of_third_parties_matters_only_when_the_name_is_used(world):
    world()
    assert "acme/acme_net" in list_models() and "zeta/acme_net" in list_models()
    with pytest.raises(AmbiguousNameError, match="say one of acme/acme_net, zeta/acme_net"):
        get_spec("acme_net")
    assert get_spec("zeta/acme_net").target == "pkg.mod:z"


@pytest.mark.parametrize("choice", ["acme", "acme-zoo"])
def test_prefer_decides_clashes(world, choice):
    world(IMGZOO_PREFER=choice)
    assert get_spec("acme_net").plugin == "acme"
    assert get_spec("resnet50").plugin == "acme"
    assert registry("commands").resolve("train").plugin == "archs-cnn"  # commands of imgzoo stay


def test_prefer_can_be_said_in_python(world):
    world()
    prefer("zeta")
    assert get_spec("acme_net").plugin == "zeta"


def test_every_listed_name_resolves_to_its_row(world):
    world()
    for name, spec in registry("models").listed().items():
        assert registry("models").resolve(name) is spec
        assert get_spec(f"{spec.plugin}/{spec.name}") is spec
        for row in spec.weights:
            assert resolve_model(f"{spec.plugin}/{spec.name}.{row.tag}")[1] == row


def test_added_weights_join_the_architecture_where_the_tag_is_free(world, site):
    world(IMGZOO_DISABLE_PLUGINS="zeta")
    assert list_weights("resnet50") == ["resnet50.a1", "resnet50.acme1"]
    assert resolve_model("resnet50.acme1")[1].url == "https://x/y"
    assert resolve_model("resnet50")[1].tag == "a1"
    assert resolve_model("acme/resnet50.acme1")[0].plugin == "archs-cnn"


def test_added_weights_do_not_replace_those_of_the_architecture(world):
    world()
    assert resolve_model("resnet50.a1")[1].hf_hub_id == "o/r"
    assert resolve_model("acme/resnet50.a1")[1].url == "https://x/z"


def test_figures_of_an_architecture_are_not_those_of_weights_that_were_added(world):
    from imgzoo.query import Row

    world(IMGZOO_PREFER="acme")
    spec, weights = resolve_model("archs-cnn/resnet50.a1")
    row = Row("resnet50.a1", spec, weights, {"weights": {"a1": {"imagenet": [80.0, 95.0]}}})
    assert (weights.plugin, row.plugin, row.score("imagenet")) == ("acme", "acme", None)


def test_added_weights_that_clash_are_an_error_when_used(world):
    world()
    with pytest.raises(AmbiguousNameError, match=r"say one of acme/resnet50.acme1, zeta/resnet50.acme1"):
        resolve_model("resnet50.acme1")
    assert resolve_model("zeta/resnet50.acme1")[1].url == "https://z/y"
    assert "resnet50.acme1" not in list_weights()


def test_added_weights_never_become_the_default_of_another_plugins_architecture(world):
    world()
    assert resolve_model("resnet101")[1] is None
    assert [row.arch for row in registry("models").added.orphans] == ["nobody"]


def test_two_distributions_with_one_plugin_name_go_by_their_own_names(site, use_plugins):
    for letter in "ab":
        source = (
            f"@hookimpl\ndef imgzoo_models(): return [ModelSpec('shared', 'm:{letter}'), ModelSpec('{letter}', 'm:x')]"
        )
        site.add(f"{letter}-zoo", "zoo", source)
    use_plugins(site.manager())
    assert get_spec("a-zoo/shared").target == "m:a"
    assert get_spec("zoo/b").plugin == "b-zoo"
    with pytest.raises(AmbiguousNameError, match="say one of a-zoo/shared, b-zoo/shared"):
        get_spec("zoo/shared")


@pytest.mark.parametrize("thief", ["a-zoo", "b-zoo"])
def test_a_third_plugin_does_not_take_the_name_another_has_to_go_by(site, use_plugins, thief):
    for letter in "ab":
        site.add(f"{letter}-zoo", "zoo", f"@hookimpl\ndef imgzoo_models(): return [ModelSpec('net', 'm:{letter}')]")
    site.add("c-zoo", thief, "@hookimpl\ndef imgzoo_models(): return [ModelSpec('net', 'm:c')]")
    host = site.manager()
    use_plugins(host)
    assert get_spec(f"{thief}/net").target == f"m:{thief[0]}"
    assert [(plugin.dist, plugin.state) for plugin in host.plugins if plugin.dist == "c-zoo"] == [
        ("c-zoo", "name-taken")
    ]


def test_ambiguous_names_are_listed_and_marked(site):
    """Each by its full name, said once more below, and marked in JSON; what imgzoo owns is not ambiguous."""
    import json

    for letter in "ab":
        site.add(f"{letter}-zoo", letter, f"""
            @hookimpl
            def imgzoo_models():
                return [ModelSpec(name, 'm:{letter}') for name in ('net', 'resnet18', '{letter}_net')]
            @hookimpl
            def imgzoo_losses(): return [ComponentSpec('hinge', 'm:{letter}')]
        """)  # fmt: skip
    for kind, name in (("model", "net"), ("loss", "hinge")):
        done = site.run("list", "*/*", "a_net", "--kind", kind)
        assert {f"a/{name}", f"b/{name}"} <= set(done.stdout.split())
        assert f"several plugins bring {name}: say which with plugin/name" in done.stderr
        rows = {row["name"]: row for row in json.loads(site.run("list", "--json", "--kind", kind).stdout)}
        assert {row for row in rows if rows[row].get("ambiguous")} == {f"a/{name}", f"b/{name}"}
    assert "several plugins" not in site.run("list", "a_net").stderr


def test_unknown_tag_names_those_there_are(world):
    world()
    with pytest.raises(UnknownNameError, match="resnet50 has no weights 'b2'; it has a1"):
        resolve_model("resnet50.b2")
    assert not is_model("resnet50.b2")
    assert is_model("resnet50.a1")


def test_unknown_name_suggests_near_ones(world):
    world()
    with pytest.raises(UnknownNameError, match="there is no model 'resnet5'; did you mean resnet50"):
        get_spec("resnet5")
    with pytest.raises(UnknownNameError, match="did you mean resnet101"):
        get_spec("resnte101")
    with pytest.raises(UnknownNameError, match="there is no model 'RESNET50'; did you mean resnet50"):
        get_spec("RESNET50")


@pytest.mark.parametrize(
    ("name", "dist"),
    [
        ("resnet50", "imgzoo-archs-cnn"),
        ("vit_base_patch16_224", "imgzoo-archs-transformer"),
        ("tf_efficientnet_lite0", "imgzoo-archs-efficientnet"),
        ("tf_inception_v3", "imgzoo-archs-cnn"),
        ("test_vit", "imgzoo-archs-transformer"),
        ("gluon_resnet50_v1b", "imgzoo-archs-cnn"),
    ],
)
def test_unknown_name_says_what_to_install(site, use_plugins, name, dist):
    use_plugins(site.manager())
    with pytest.raises(UnknownNameError, match=f"pip install {dist}$"):
        get_spec(name)


def test_unknown_name_names_a_failed_plugin_that_may_bring_it(site, use_plugins):
    site.add("imgzoo-archs-cnn", "archs-cnn", "raise ImportError('half an upgrade')")
    site.add("imgzoo-optim", "optim", "raise ImportError('unrelated')")
    use_plugins(site.manager())
    with pytest.raises(UnknownNameError) as caught:
        get_spec("resnet50")
    assert (
        "plugin archs-cnn (imgzoo-archs-cnn 1.0) may bring it, but it is 'error': ImportError: half an upgrade"
        in str(caught.value)
    )
    assert "optim" not in str(caught.value)
    assert "pip install" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "dist"), [("optimizers", "imgzoo-optim"), ("losses", "imgzoo-train"), ("datasets", "imgzoo-data")]
)
def test_unknown_component_says_what_to_install(site, kind, dist):
    with pytest.raises(UnknownNameError, match=f"pip install {dist}"):
        Registry(kind, site.manager()).resolve("adamw")


def test_every_model_of_imgzoo_has_its_home_in_the_table():
    dists = {plugin.name: plugin.dist for plugin in registry("models").plugins.plugins}
    wrong = {
        name: home("model", name)
        for name, spec in registry("models").listed().items()
        if spec.plugin.startswith("archs-") and home("model", name) != dists[spec.plugin]
    }
    assert wrong == {}
    stems = [stem for text in STEMS.values() for stem in text.split()]
    assert len(stems) == len(set(stems))


def test_every_command_of_imgzoo_has_its_home_in_the_table():
    plugins = registry("commands").plugins.plugins
    dists = {plugin.name: plugin.dist for plugin in plugins if plugin.first_party and plugin.name != "core"}
    commands = registry("commands").listed()
    wrong = [
        name for name, spec in commands.items() if spec.plugin in dists and home("command", name) != dists[spec.plugin]
    ]
    assert wrong == []


def test_every_model_and_alias_of_imgzoo_resolves():
    own = registry("models")
    for name, spec in own.listed().items():
        for alias, new in spec.aliases.items():
            found, weights, replacement = models._resolve(alias)
            assert (found.name, replacement) == (spec.name, new), name
            assert "." not in new or weights.tag == new.partition(".")[2]


def test_a_plugin_object_can_be_registered_by_hand(site, use_plugins):
    from imgzoo.plugin import ModelSpec, hookimpl

    class Mine:
        @hookimpl
        def imgzoo_models(self):
            return [ModelSpec("mine", "pkg.mod:net")]

    use_plugins(site.manager())
    register(Mine(), "notebook")
    assert get_spec("notebook/mine").plugin == "notebook"
    with pytest.raises(Exception, match="taken"):
        register(Mine(), "notebook")


def test_unknown_kind_lists_the_kinds():
    with pytest.raises(UsageError, match="kinds are models, optimizers"):
        registry("layers")


@pytest.mark.parametrize("name", ["a b", "a/b", "a.b", "", "\x1b[31mred", "naïve"])
def test_a_name_that_could_confuse_is_refused(site, name):
    site.add("bad-zoo", "bad", f"@hookimpl\ndef imgzoo_models(): return [ModelSpec({name!r}, 'a.b:c')]")
    host = site.manager()
    assert fill(host, "models").names() == []
    assert host.plugins[-1].state == "error"


@pytest.mark.parametrize("target", ["", "module", "module:", ":attr"])
def test_a_target_must_name_module_and_attribute(site, target):
    site.add("bad-zoo", "bad", f"@hookimpl\ndef imgzoo_losses(): return [ComponentSpec('x', {target!r})]")
    host = site.manager()
    assert Registry("losses", host).names() == []
    assert "target" in host.plugins[-1].reason


@pytest.mark.parametrize(
    "name", ["m.onnx", "weights.pth", "{known}.pth", "./{known}", "./y.txt", "photos", "./{known}_"]
)
def test_a_path_that_holds_no_model_is_named_as_what_it_is(name, tmp_path, monkeypatch):
    """A stranger gives a weight file, an exported file or a folder of images where a model is to be named."""
    monkeypatch.chdir(tmp_path)
    known = list_models()[0]
    name = name.format(known=known)
    path = tmp_path / name
    if name in ("photos", f"./{known}_"):
        path.mkdir()
    else:
        path.write_bytes(b"x")
    with pytest.raises(UnknownNameError, match=r"is a file, no model: .*pretrained|is a folder without a config.json"):
        locate(name)
    assert locate(known).spec.name == known  # a name stays one, whatever lies here
