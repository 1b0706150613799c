"""`forward_intermediates` in every form beside the peer's, one name of every family: shapes, numbers, refusals."""

import pytest
import torch

import kit
from small import SMALLEST
from structures import COMPARED, DOUBLE, PACKAGES

pytestmark = pytest.mark.parity

OWN_FEATURES = ("hiera", "efficientvim", "convit")
"""Features of a path that stops early: here rows of the map, in the peer in an order that its next stage would undo;
here what the next stage reads, in the peer what the head would; here with the class token, which in the peer joins
behind the local blocks. So it is with all convolutional families: the peer's path goes on to the pool, the norm or the
branches behind a level, ours ends with it. Their levels alone are compared."""
TOKENS = {path.stem for path in PACKAGES.glob("archs-transformer/tests/structures/*.json")} - {*OWN_FEATURES}


def forms(count: int, features: bool):
    """Options of one call each. Order is not among them: here levels come as asked for, in the peer by depth."""
    for output_fmt in ("NCHW", "NLC", "NHWC"):
        yield dict(output_fmt=output_fmt)
    yield dict(output_fmt="NLC", norm=True, indices=[0], intermediates_only=True)
    yield dict(return_prefix_tokens=True, indices=[0])
    yield dict(return_prefix_tokens=True, output_fmt="NLC", norm=True, indices=1)
    yield dict(indices=min(2, count), intermediates_only=True)
    for stop in {0, max(count - 2, 0), count - 1}:
        yield dict(indices=[stop], stop_early=True, intermediates_only=not features)


def taken(model, x, options):
    """What a call gives; None where the library has no such form, or fails at it."""
    try:
        return model.forward_intermediates(x, **options)
    except (AssertionError, TypeError, ValueError, KeyError, UnboundLocalError):
        return None


def compare(ours, theirs, what: str) -> None:
    if isinstance(theirs, torch.Tensor):
        kit.assert_equal(ours, theirs, what)
        return
    assert len(ours) == len(theirs), what
    for mine, other in zip(ours, theirs, strict=True):
        compare(mine, other, what)


@pytest.mark.parametrize("family", COMPARED)
def test_every_form_is_the_peers(family):
    name = SMALLEST[family]
    peer, ours = kit.pair(name)
    x = kit.image(kit.input_sizes(name)[0], batch=1)
    if name in DOUBLE:
        peer, ours, x = peer.double(), ours.double(), x.double()
    compared = 0
    with torch.inference_mode():
        for options in forms(len(ours.feature_info), family in TOKENS):
            theirs = taken(peer, x, options)
            if theirs is None:
                continue
            mine = taken(ours, x, options)
            assert mine is not None, f"refused here: {options}"
            compare(mine, theirs, str(options))
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("prune_norm", [False, True])
@pytest.mark.parametrize("indices", [[0], [1], [2], [0, 2]], ids=str)
@pytest.mark.parametrize("name", ["efficientvim_m1", "efficientvim_m1_dist"])
def test_a_pruned_state_space_network_is_the_peers(name, indices, prune_norm):
    peer, ours = (each.double().eval() for each in kit.pair(name, num_classes=5))
    x = kit.image(kit.input_sizes(name)[0]).double()
    for each in (peer, ours):
        each.prune_intermediate_layers(indices, prune_norm=prune_norm)
    for classes in (0, 7):
        peer.reset_classifier(classes)
        ours.reset_classifier(classes)
        ours.load_state_dict(peer.state_dict())
        with torch.inference_mode():
            compare(ours(x), peer(x), "forward")
            for mine, other in zip(ours.forward_intermediates(x), peer.forward_intermediates(x), strict=True):
                compare(mine, other, "levels and features")
