"""States of extractors: those of the native ones, of the whole network, and what no level needs."""

import pytest
import torch
from client_code import Steps, scripting

import imgzoo
import imgzoo_timm as timm
from imgzoo.errors import CapabilityError, OptionError
from imgzoo.features import native_key

FORMS = {
    "test_resnet": (None, "dict", "getter", "hook"),
    "test_byobnet": (None, "getter", "hook"),
    "test_convnext": (None, "getter"),
    "tresnet_m": (None, "hook"),
    "test_vit": (None,),
    "test_efficientnet": (None, "hook"),
    "levit_conv_128s": (None,),
    "levit_128s": (None,),
    "efficientvim_m1_dist": (None,),
    "pit_ti_224": (None, "list"),
    "legacy_xception": (None,),
    "sedarknet21": (None,),
}
"""Forms of extractors to try of each name; None is the one that its family has in the field."""


@pytest.mark.parametrize("form, name", [(form, name) for name, forms in FORMS.items() for form in forms])
@torch.no_grad()
def test_extractors_exchange_their_weights(form, name):
    made = timm.create_model(name, features_only=True, feature_cls=form).eval()
    native = imgzoo.create_model(name, features_only=True, out_indices=list(made.feature_info.out_indices)).eval()
    x = torch.randn(1, *native.pretrained_cfg["input_size"])
    for state in (native.state_dict(), native.flat_state_dict()):
        made.load_state_dict({key: torch.zeros_like(each) for key, each in made.state_dict().items()})
        made.load_state_dict(state)
        given = made(x)
        for level, expected in zip(given.values() if form == "dict" else given, native(x), strict=True):
            torch.testing.assert_close(level, expected)
    other = {key: torch.full_like(each, 2) for key, each in made.state_dict().items()}
    native.load_state_dict(other)
    assert all(each.eq(2).all() for each in native.state_dict().values())


@pytest.mark.parametrize("name", FORMS)
def test_weights_of_the_whole_network_load_into_its_extractor(name):
    whole = imgzoo.create_model(name)
    needed = imgzoo.create_model(name, features_only=True).model.state_dict().keys()
    for create in (imgzoo.create_model, timm.create_model):
        extractor = create(name, features_only=True)
        extractor.load_state_dict(whole.state_dict())
        assert all(torch.equal(each, whole.state_dict()[native_key(key, whole.state_dict().keys())])
                   for key, each in extractor.state_dict().items())  # fmt: skip
        with pytest.raises(RuntimeError, match="strange"):
            extractor.load_state_dict({**whole.state_dict(), "strange": torch.zeros(1)})
        first = next(key for key in extractor.state_dict() if native_key(key, needed))
        with pytest.raises(RuntimeError, match=f"Missing key.*\n?.*{first}"):
            extractor.load_state_dict({key: each for key, each in extractor.state_dict().items() if key != first})


def test_extractors_of_convolutions_alone_are_in_parts():
    assert type(timm.create_model("levit_conv_128s", features_only=True)) is timm.models.FeatureListNet
    assert type(timm.create_model("levit_128s", features_only=True)) is timm.models.FeatureGetterNet


@pytest.mark.parametrize("name, spare", [("efficientvim_m1_dist", set()),
                                         ("gemma4_vit_570m_enc", {"std_bias", "std_scale"})])  # fmt: skip
def test_extractors_keep_what_the_fields_keep(name, spare):
    states = [create(name, features_only=True, device="meta").state_dict().keys()
              for create in (timm.create_model, imgzoo.create_model)]  # fmt: skip
    assert states[0] - states[1] == {f"model.{each}" for each in spare}


@torch.no_grad()
def test_levels_of_hrnet_before_they_are_widened():
    model, x = (
        timm.create_model("hrnet_w18_small", features_only=True, feature_location="").eval(),
        torch.randn(1, 3, 64, 64),
    )
    whole, seen = timm.create_model("hrnet_w18_small").eval(), []
    assert not [key for key in model.state_dict() if key.startswith("incre_modules")]
    whole.load_state_dict(model.state_dict(), strict=False)
    whole.incre_modules.register_forward_hook(lambda part, args, output: seen.extend(args[0]))
    whole(x)
    assert model.feature_info.channels() == [64, *(each.shape[1] for each in seen)]
    for level, expected in zip(model(x)[1:], seen, strict=True):
        torch.testing.assert_close(level, expected)
    first = timm.create_model("hrnet_w18_small", features_only=True, feature_location="", out_indices=(1,)).eval()
    first.load_state_dict(model.state_dict())
    torch.testing.assert_close(first(x)[0], seen[0])


def test_places_of_levels_that_a_network_has_not_are_refused():
    with pytest.raises(OptionError, match="is 'incre' or '', not 'expansion'"):
        timm.create_model("hrnet_w18_small", features_only=True, feature_location="expansion", device="meta")
    with pytest.raises(OptionError, match="leave it out"):
        timm.create_model("test_resnet", features_only=True, feature_location="", device="meta")


class Around(torch.nn.Module):
    """An extractor inside of a client's network."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x: torch.Tensor):
        return self.encoder(x)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", scripting())
def test_extractors_script(name):
    extractor = timm.create_model(name, features_only=True).eval()
    x = torch.randn(1, *imgzoo.create_model(name, device="meta").pretrained_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(Around(extractor))(x), extractor(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", [timm.models.FeatureListNet, timm.models.FeatureDictNet])
def test_extractors_of_both_forms_script_over_any_network(form):
    for network, flat in ((timm.create_model("test_resnet"), False), (Steps(), True)):
        extractor, x = form(network, out_indices=(0, 2), flatten_sequential=flat).eval(), torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            given, expected = torch.jit.script(extractor)(x), extractor(x)
        torch.testing.assert_close(dict(given) if form is timm.models.FeatureDictNet else given,
                                   dict(expected) if form is timm.models.FeatureDictNet else expected)  # fmt: skip


def test_levels_that_hooks_take_do_not_script():
    with pytest.raises(CapabilityError, match="say feature_cls='list'"):
        torch.jit.script(timm.create_model("test_resnet", features_only=True, feature_cls="hook"))
