"""ImageNet's label sets and ReaL."""

import numpy as np
import pytest

from imgzoo.errors import UsageError
from imgzoo_data.info import (
    SUBSETS,
    ImageNetInfo,
    RealLabels,
    class_names,
    index_map,
    infer_imagenet_subset,
    real_labels,
)

SIZES = {
    "imagenet-1k": 1000,
    "imagenet-12k": 11821,
    "imagenet-21k": 21843,
    "imagenet-21k-miil": 11221,
    "imagenet-22k": 21841,
    "imagenet-22k-ms": 21842,
    "imagenet-a": 200,
    "imagenet-r": 200,
    "mini-imagenet": 100,
}


@pytest.mark.parametrize(("name", "count"), SIZES.items())
def test_sizes_and_inference(name, count):
    info = ImageNetInfo(name)
    assert info.num_classes == count == len(set(info.label_names))
    assert all(info.label_descriptions())
    if count > 200:
        assert infer_imagenet_subset({"num_classes": count}) == info.subset


def test_names_and_definitions():
    info = ImageNetInfo()
    assert info.index_to_label_name(0) == "n01440764"
    assert info.index_to_description(0) == "tench, Tinca tinca"
    assert info.index_to_description(967) == "espresso"
    assert info.index_to_description(0, detailed=True).startswith("tench, Tinca tinca: freshwater dace-like game fish")
    with pytest.raises(UsageError, match=r"0\.\.999"):
        info.index_to_label_name(1000)
    with pytest.raises(UsageError, match="imagenet-22k"):
        ImageNetInfo("imagenet-2k")


def test_index_maps_lead_to_the_same_synsets():
    for source, target in (
        ("imagenet-22k", "imagenet-12k"),
        ("imagenet-1k", "imagenet-a"),
        ("imagenet-21k", "imagenet-1k"),
    ):
        names, wanted, places = (
            ImageNetInfo(source).label_names,
            ImageNetInfo(target).label_names,
            index_map(source, target),
        )
        assert all(names[place] == name for place, name in zip(places, wanted) if place >= 0)
        assert (places >= 0).mean() > 0.99
    assert index_map("imagenet-1k", "imagenet-a")[:4].tolist() == [6, 11, 13, 15]


def test_class_names_come_with_the_weights_or_by_their_number():
    assert class_names({"num_classes": 2, "label_names": ["yes", "no"]}) == ["yes", "no"]
    assert class_names({"num_classes": 1000})[967] == "espresso"
    assert class_names({"num_classes": 7}) is None


def test_real_labels():
    labels = real_labels()
    assert len(labels) == 50_000 and labels[1] == [970, 795] and labels[0] == []
    score = RealLabels(
        ["x/ILSVRC2012_val_00000002.JPEG", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000004.JPEG"]
    )
    score.add(np.array([[795, 0, 0, 0, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 809]]), np.array([0, 1, 2]))
    assert score.count == 2 and score.accuracy(1) == 50 and score.accuracy(5) == 100
    with pytest.raises(UsageError, match="named like"):
        RealLabels(["cat.jpg"])


def test_every_set_is_listed():
    assert set(SIZES) - {"imagenet-21k"} < set(SUBSETS)
