"""Every option of `create_model` that is accepted has its effect: over all names, on the meta device."""

import pytest
from small import SMALLEST

import imgzoo
from imgzoo.errors import CapabilityError, UsageError
from imgzoo.loading.adapt import first_conv


@pytest.mark.parametrize("name", imgzoo.list_models())
def test_classes_and_channels_are_taken(name):
    model = imgzoo.create_model(name, device="meta", num_classes=13, in_chans=5)
    assert (model.num_classes, model.in_chans) == (13, 5)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert all(shapes[f"{path}.weight"][0] == 13 for path in model._heads())
    assert shapes[f"{first_conv(model)}.weight"][1] % 5 == 0


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
