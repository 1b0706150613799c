"""Every option of `create_model` that is accepted has its effect: over all names, on the meta device."""

import pytest
from small import SMALLEST

import imgzoo
from imgzoo.errors import CapabilityError, UsageError

TRANSFORMED = ("csatv2", "csatv2_21m")  # no kernel sees the image itself


@pytest.mark.parametrize("name", imgzoo.list_models())
def test_classes_and_channels_are_taken(name):
    model = imgzoo.create_model(name, device="meta", num_classes=13, in_chans=5)
    assert (model.num_classes, model.in_chans) == (13, 5)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert all(shapes[f"{path}.weight"][0] == 13 for path in model._heads())
    color = imgzoo.create_model(name, device="meta", num_classes=13).state_dict()
    seeing = [key for key, shape in shapes.items() if shape != color[key].shape]
    assert bool(seeing) != (name in TRANSFORMED)
    assert all(3 * shapes[key][1] == 5 * color[key].shape[1] for key in seeing)


@pytest.mark.parametrize("name", SMALLEST.values(), ids=SMALLEST)
def test_pools_are_taken_or_refused(name):
    for pool in ("avg", "max", "avgmax", "catavgmax", "token", ""):
        try:
            model = imgzoo.create_model(name, device="meta", num_classes=13, global_pool=pool)
        except (CapabilityError, UsageError):
            continue
        assert model.pool_kind() == pool
    with pytest.raises(UsageError):
        imgzoo.create_model(name, device="meta", global_pool="median")
