"""What every model answers, on a tiny one: options, levels, indices, heads, groups, checkpointing."""

import copy
import pickle

import numpy as np
import pytest
import torch
from tiny_models import TinyNet, plugin

import imgzoo
from imgzoo.construction import call
from imgzoo.errors import CapabilityError, OptionError, UnknownNameError, UsageError
from imgzoo.features import resolve_indices
from imgzoo.groups import layer_ids
from imgzoo.model import Checkpointed
from imgzoo.model.image import laid_out, plain_where_small

IMAGE = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def tiny():
    imgzoo.reload()
    imgzoo.register(plugin(), "tinyplug")
    yield
    imgzoo.reload()


@pytest.fixture
def model():
    return imgzoo.create_model("tiny").eval()


def test_names_with_and_without_plugin_and_tag():
    for name in ("tiny", "tinyplug/tiny", "tiny.b_in10", "tinyplug/tiny.b_in10"):
        assert imgzoo.create_model(name).name == "tiny"
    with pytest.raises(UnknownNameError, match="tiny"):
        imgzoo.create_model("tinny")


def test_none_is_dropped_and_unknown_options_are_named():
    imgzoo.create_model("tiny", width=None, drop_rate=None, drop_path_rate=0.0)
    with pytest.raises(OptionError, match=r"'widht'; it takes .*width"):
        imgzoo.create_model("tiny", widht=8)
    assert isinstance(OptionError("x"), TypeError)


@pytest.mark.parametrize("options, error", [
    ({"num_classes": -1}, UsageError), ({"in_chans": 0}, UsageError), ({"num_classes": "10"}, UsageError),
    ({"num_classes": True}, UsageError), ({"global_pool": "median"}, UsageError),
    ({"output_stride": 8}, CapabilityError), ({"drop_path_rate": 0.1}, CapabilityError),
    ({"out_indices": [0]}, OptionError),
    ({"features_only": True, "out_indices": [7]}, UsageError),
    ({"features_only": True, "out_indices": [0, 0]}, UsageError),
    ({"features_only": True, "out_indices": []}, UsageError),
])  # fmt: skip
def test_bad_values_are_typed_errors_of_one_sentence(options, error):
    with pytest.raises(error) as caught:
        imgzoo.create_model("tiny", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indices, chosen", [
    (None, [0, 1, 2, 3]), (2, [2, 3]), ([-1], [3]), ([3, 0], [3, 0]), ((1, -1), [1, 3]),
])  # fmt: skip
def test_indices(indices, chosen):
    assert resolve_indices(4, indices) == chosen
    assert (
        resolve_indices(4, np.int64(indices) if isinstance(indices, int) else indices and np.array(indices)) == chosen
    )


def test_indices_of_numpy(model):
    assert len(model.forward_intermediates(IMAGE, indices=np.int64(1))[1]) == 1
    assert len(model.forward_intermediates(IMAGE, indices=np.array([0, -1]))[1]) == 2
    assert model.feature_info.channels(np.int64(0)) == model.feature_info.channels(0)


@pytest.mark.parametrize("train", [False, True])
def test_memory_layout_changes_no_number(model, train):
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    model.double().train(train)
    gradients = {}
    for layout in ("plain", "nhwc"):
        model.layout = layout
        model.zero_grad()
        logits = model(x)
        logits.square().sum().backward()
        gradients[layout] = [logits, *(p.grad for p in model.parameters())]
    for plain, nhwc in zip(gradients["plain"], gradients["nhwc"], strict=True):
        torch.testing.assert_close(nhwc, plain)
    assert laid_out(x, "nhwc", train).is_contiguous(memory_format=torch.channels_last)
    assert laid_out(x, "plain", train) is x
    assert laid_out(x, "nhwc", train, 5) is x


def test_features_come_in_the_order_asked(model):
    maps = imgzoo.create_model("tiny", features_only=True, out_indices=[-1, 0])
    assert maps.feature_info.channels() == [32, 16] == [m.shape[1] for m in maps(IMAGE)]
    assert maps.feature_info.reduction() == [8, 4]
    assert maps.feature_info.module_name() == ["stages.1", "stages.0"]
    assert [row["num_chs"] for row in maps.feature_info.get_dicts()] == [32, 16]


def test_intermediates_and_final_agree_with_forward(model):
    with torch.no_grad():
        final, levels = model.forward_intermediates(IMAGE)
        torch.testing.assert_close(model.forward_head(final), model(IMAGE))  # which may lay its input out otherwise
        early, only = model.forward_intermediates(IMAGE, [0], stop_early=True)
    assert torch.equal(only[0], levels[0]) and early.shape == levels[0].shape
    with pytest.raises(UsageError, match="'NCHW'"):
        model.forward_intermediates(IMAGE, output_fmt="NLC")


def test_the_head_is_reset_without_touching_the_rest(model):
    for p in model.parameters():
        p.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.reset_classifier(3, "max")
    assert model(IMAGE).shape == (2, 3) and model.pool_kind() == "max"
    assert model.fc.weight.requires_grad and not model.stem.weight.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items() if not k.startswith("fc"))
    model.reset_classifier(0)
    assert model(IMAGE).shape == (2, 32)


def test_layers_are_numbered_from_the_stem(model):
    ids = layer_ids(model, model.group_matcher())
    assert ids["stem.weight"] == 0 and ids["stages.1.weight"] == 2
    assert ids["norm.weight"] == 2, "the final norm joins the last block"
    assert ids["fc.weight"] == 3


def test_checkpointing_can_be_switched_and_copied(model):
    names = list(model.state_dict())
    model.set_grad_checkpointing()
    twin = copy.deepcopy(model)
    assert list(model.state_dict()) == names
    model.train()(IMAGE).sum().backward()
    again = pickle.loads(pickle.dumps(model))
    assert isinstance(again.stages[0], Checkpointed) and torch.equal(again.eval()(IMAGE), model.eval()(IMAGE))
    assert twin.stages[0].weight.grad is None and model.stages[0].weight.grad is not None
    model.set_grad_checkpointing(False)
    assert type(model.stages[0]) is torch.nn.Conv2d


def test_creation_leaves_the_random_state_to_the_caller(model, tmp_path):
    imgzoo.save_model(model, tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    imgzoo.create_model("tiny", pretrained=tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert isinstance(imgzoo.create_model("tiny"), TinyNet)


def test_device_and_dtype():
    model = imgzoo.create_model("tiny", device="meta", dtype=torch.bfloat16)
    assert all(p.is_meta and p.dtype == torch.bfloat16 for p in model.parameters())


def test_a_pruned_network_is_not_saved_as_a_whole_one(model, tmp_path):
    """Its file lacked what its description promises, and could not be read."""
    model.prune_intermediate_layers([-1], prune_head=False)
    imgzoo.save_model(model, tmp_path / "whole")
    assert torch.equal(imgzoo.create_model(tmp_path / "whole", pretrained=True).eval()(IMAGE), model(IMAGE))
    model.prune_intermediate_layers([0])
    with pytest.raises(UsageError, match=r"lacks norm\.|lacks stages\."):
        imgzoo.save_model(model, tmp_path / "part")
    assert not (tmp_path / "part").exists()


def test_pruning_refuses_a_head_that_cannot_fit_and_gives_the_right_width(model):
    keys = list(model.state_dict())
    with pytest.raises(UsageError, match="prune_head=True"):
        model.prune_intermediate_layers([0], prune_head=False)
    assert list(model.state_dict()) == keys, "what is refused changes nothing"
    model.prune_intermediate_layers([-1], prune_head=False)
    assert list(model.state_dict()) == keys, "the classifier fits behind the last level"
    model.prune_intermediate_layers([0])
    assert model.num_features == 16 and "norm.weight" not in model.state_dict()
    model.reset_classifier(3, "avg")
    assert model.get_classifier().in_features == 16


def test_a_pool_word_that_is_refused_changes_nothing(model):
    before = model(IMAGE)
    with pytest.raises(UsageError, match="median"):
        model.reset_classifier(3, "median")
    assert torch.equal(model(IMAGE), before) and model.num_classes == 10


@pytest.mark.parametrize("error", [TypeError("no len()"), KeyError("foo"), OSError("no file"), ZeroDivisionError("x")])
def test_what_a_constructor_dies_of_names_the_options_given(monkeypatch, error):
    def broken(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(TinyNet, "__init__", broken)
    spec = imgzoo.get_spec("tiny")
    with pytest.raises(UsageError, match=r"tiny cannot be built with width='a' \(.*\); see imgzoo info tiny --options"):
        call(TinyNet, spec, {"width": "a", "num_classes": 10}, {"width": "a"})
    with pytest.raises(type(error)):  # without options it is the plugin's fault, and its traceback helps
        call(TinyNet, spec, {**spec.kwargs, "num_classes": 10}, {})


def test_a_word_that_no_table_has_is_named_with_its_option():
    def build(width, num_classes):
        return {"narrow": 8}[width]

    with pytest.raises(UsageError, match=r"^tiny: width has no 'a'; see imgzoo info tiny --options$"):
        call(build, imgzoo.get_spec("tiny"), {"width": "a", "num_classes": 10}, {"num_classes": 10, "width": "a"})


@pytest.mark.filterwarnings("ignore:The TorchScript type system")
def test_a_traced_network_is_scripted():
    """What the base does to memory is a call in the graph, of tensors to the script's compiler."""
    model = imgzoo.create_model("tiny").eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(torch.fx.symbolic_trace(model))(x), model(x))


@pytest.mark.parametrize("train", [True, False])
def test_batches_that_gradients_follow_keep_their_layout(train):
    """A strided 1x1 convolution of an image in channels-last memory corrupts memory in its weight gradient."""
    x = torch.randn(2, 3, 8, 8)
    assert laid_out(x, "nhwc_eval", train) is x
    with torch.no_grad():
        assert (laid_out(x, "nhwc_eval", train) is x) is train


def test_a_small_map_returns_to_the_plain_order():
    """Large kernels are copied into channels-last memory in every pass, for longer than few places gain."""
    few = torch.randn(2, 3, 31, 33).contiguous(memory_format=torch.channels_last)
    many = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    assert plain_where_small(few) is few  # a gradient may follow
    with torch.no_grad():
        small = plain_where_small(few)
        assert small.is_contiguous() and torch.equal(small, few)
        assert plain_where_small(many) is many and plain_where_small(small) is small


def test_numbers_of_numpy_and_torch_are_numbers(tmp_path):
    numpy = pytest.importorskip("numpy")
    made = imgzoo.create_model(
        "tiny", num_classes=numpy.int64(5), drop_rate=numpy.float32(0.25), in_chans=torch.tensor(1)
    )
    assert made.model_args == {"num_classes": 5, "drop_rate": 0.25, "in_chans": 1}
    imgzoo.save_model(made, tmp_path)
    assert imgzoo.create_model(f"local-dir:{tmp_path}", pretrained=True).num_classes == 5
    made.reset_classifier(numpy.int32(3))
    assert made.num_classes == 3
    with pytest.raises(UsageError, match="num_classes"):
        imgzoo.create_model("tiny", num_classes=numpy.float64(5.5))
    with pytest.raises(OptionError, match=r"dtype is one of torch's, as torch.bfloat16, not 'bfloat16'"):
        imgzoo.create_model("tiny", dtype="bfloat16")
