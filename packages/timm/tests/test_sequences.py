"""Patches of images of any shape, policies as lists, names of classes: what scripts rely on."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from imgzoo_timm.data import (
    AutoAugment,
    CustomDatasetInfo,
    DatasetInfo,
    DatasetInfoLabelMapper,
    ImageDataset,
    ImageNetInfo,
    IterableImageDataset,
    NaFlexMapDatasetWrapper,
    NaFlexMixup,
    Patchify,
    PatchRandomErasing,
    RandAugment,
    RandomPad,
    ResizeKeepRatioToSequence,
    auto_augment_policy,
    calculate_naflex_batch_size,
    create_loader,
    create_naflex_loader,
    create_transform,
    mix_batch_variable_size,
    patchify_image,
    rand_augment_ops,
    rand_augment_transform,
)
from imgzoo_timm.models import create_model

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))


class Pictures(torch.utils.data.Dataset):
    transform = None

    def __init__(self, count=21):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image = Image.new("RGB", (90 - i, 40 + i), (i, i, i))
        return (self.transform(image) if self.transform else image), i


LOADS = dict(train_seq_lens=(4, 9), max_seq_len=9, batch_size=4, persistent_workers=False, pin_memory=False,
             device=torch.device("cpu"))  # fmt: skip


def test_batches_hold_every_sample_once_and_feed_a_network():
    loader = create_naflex_loader(Pictures(), patch_size=16, is_training=True, num_workers=0, hflip=0, **LOADS)
    epochs = []
    for epoch in range(2):
        loader.dataset.set_epoch(epoch)
        epochs.append([(row["seq_len"], targets.tolist()) for row, targets in loader])
        assert sorted(i for _, targets in epochs[-1] for i in targets) == list(range(21))
        assert len(epochs[-1]) == len(loader)
    assert epochs[0] != epochs[1] and sorted(len(each) for _, each in epochs[0]) == sorted(
        len(each) for _, each in epochs[1])  # fmt: skip
    model = create_model("naflexvit_base_patch16_gap", depth=1, embed_dim=24, num_heads=2, num_classes=5).eval()
    evaluation = create_naflex_loader(Pictures(5), patch_size=16, num_workers=0, **LOADS)
    row, targets = next(iter(evaluation))
    assert targets.tolist() == [0, 1, 2, 3] and row["patches"].shape == (4, 9, 768)
    with torch.no_grad():
        assert model(row).shape == (4, 5)


def test_workers_and_processes_share_the_samples():
    def epoch(workers, rank=0, world=1):
        loader = create_naflex_loader(Pictures(), patch_size=16, is_training=True, num_workers=workers, rank=rank,
                                      distributed=world > 1, world_size=world, use_prefetcher=False,
                                      **LOADS)  # fmt: skip
        return [(row["seq_len"], targets.tolist()) for row, targets in loader]

    assert sorted(epoch(0)) == sorted(epoch(2))
    shares = [epoch(0, rank, 2) for rank in range(2)]
    assert [row[0] for row in shares[0]] == [row[0] for row in shares[1]]
    assert {i for share in shares for _, targets in share for i in targets} == set(range(21))


def test_normalized_pixels_are_those_without_a_prefetcher():
    for last in (True, False):
        for choices in (dict(patch_size=16), dict(patch_size_choices=[8, 16])):
            rows = [next(iter(create_naflex_loader(Pictures(), is_training=True, no_aug=True, num_workers=0, **choices,
                                                   use_prefetcher=fetch, patchify_channels_last=last, **LOADS)))[0]
                    for fetch in (True, False)]  # fmt: skip
            there, here = (row["patches"][row["patch_valid"]] for row in rows)
            torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


def test_what_sequences_refuse():
    for make in (lambda: NaFlexMapDatasetWrapper(Pictures(), patch_size=16, patch_size_choices=[8]),
                 lambda: NaFlexMapDatasetWrapper(Pictures(), patch_size_choices=[8, 16], patch_size_choice_probs=[1.0]),
                 lambda: NaFlexMapDatasetWrapper(Pictures(), seq_lens=()),
                 lambda: calculate_naflex_batch_size(100, 10, rounding="up"),
                 lambda: patchify_image(torch.zeros(3, 20, 16), (16, 16), pad=False),
                 lambda: ResizeKeepRatioToSequence(16, 20, divisible_by_patch=False)(PICTURE),
                 lambda: ResizeKeepRatioToSequence(16, 0)(PICTURE),
                 lambda: mix_batch_variable_size([torch.zeros(3, 8, 8)]),
                 lambda: mix_batch_variable_size([torch.zeros(3, 8, 8)] * 2, mixup_alpha=0, cutmix_alpha=0),
                 lambda: PatchRandomErasing(spatial_mode="all"), lambda: PatchRandomErasing(patch_drop_prob=0.5),
                 lambda: PatchRandomErasing(1.0)(torch.ones(2, 4, 12), torch.zeros(2, 4, 2)),
                 lambda: create_naflex_loader(Pictures(), num_aug_splits=2, **LOADS),
                 lambda: create_naflex_loader(Pictures(), patch_size_choices=[8, 16], **LOADS),
                 lambda: create_transform(tf_preprocessing=True)):  # fmt: skip
        with pytest.raises(ValueError) as raised:
            make()
        assert len(str(raised.value).splitlines()) == 1


def test_random_sizes_never_exceed_the_length():
    random.seed(0)
    step = ResizeKeepRatioToSequence(16, 48, random_scale_prob=1.0, random_aspect_prob=1.0)
    sizes = {step(PICTURE).size for _ in range(50)}
    assert len(sizes) > 2 and all(width * height // 256 <= 48 for width, height in sizes)


def test_mixing_ends_with_its_epoch_and_keeps_bytes():
    mixup = NaFlexMixup(num_classes=4, mixup_off_epoch=2)
    images = [torch.full((3, 8, 8 + i), 60 * i, dtype=torch.uint8) for i in range(4)]
    for epoch, mixes in ((0, True), (1, True), (2, False)):
        mixup.set_epoch(epoch)
        mixed, targets = mixup(images, torch.arange(4))
        assert any(row.max() < 1 for row in targets) == mixes and all(each.dtype == torch.uint8 for each in mixed)
        assert all(before.unique().tolist() == [60 * i] for i, before in enumerate(images))


def test_mixing_ends_in_workers_that_live_on():
    mixup = NaFlexMixup(num_classes=21, mixup_alpha=1.0, cutmix_alpha=0.0, label_smoothing=0.0, mixup_off_epoch=1)
    loader = create_naflex_loader(Pictures(), patch_size=16, is_training=True, num_workers=1, mixup_fn=mixup,
                                  **LOADS | {"persistent_workers": True})  # fmt: skip
    for epoch in (0, 1):
        loader.dataset.set_epoch(epoch)
        whole = [bool((targets.max(1).values == 1).all()) for _, targets in loader]
        assert all(whole) == bool(epoch)


def test_patches_that_are_not_there_are_not_erased():
    random.seed(0)
    coord = torch.cartesian_prod(torch.arange(4), torch.arange(4))[None]
    valid = torch.arange(16)[None] < 8
    for spatial in ("region", "patch"):
        patches = torch.ones(1, 16, 4, 3)
        for _ in range(30):
            PatchRandomErasing(1.0, device="cpu", spatial_mode=spatial)(patches, coord, valid)
        assert (patches[0, :8] == 0).any() and (patches[0, 8:] == 1).all()


def test_policies_of_ones_own_operations():
    ops = rand_augment_ops(8, 1.0, {"magnitude_std": 0.5}, ["Rotate", "Invert"])
    assert [op.name for op in ops] == ["Rotate", "Invert"] and ops[0].magnitude_std == 0.5
    inverted = np.array(ops[1](PICTURE))
    assert np.array_equal(inverted, 255 - np.array(PICTURE))
    assert np.array_equal(np.array(RandAugment(ops[1:], 2)(PICTURE)), np.array(PICTURE))
    assert np.array_equal(np.array(RandAugment(ops, 1, [0.0, 1.0])(PICTURE)), inverted)
    assert np.array_equal(np.array(AutoAugment([ops[1:]])(PICTURE)), inverted)
    assert len(auto_augment_policy("original")) == 25
    assert rand_augment_transform("rand-m9", transforms={"Rotate": 1, "Color": 3}).choice_weights.tolist() == [
        0.25,
        0.75,
    ]
    with pytest.raises(KeyError, match="no operation Nope"):
        rand_augment_ops(transforms=["Nope"])
    moved = rand_augment_ops(10, 1.0, {"translate_pct": 0.1, "img_mean": (7, 7, 7)}, ["TranslateXRel"])[0]
    assert (np.array(moved(PICTURE)) == 7).all(axis=(0, 2)).sum() in (11, 12, 13)


def test_names_of_classes_with_gaps():
    info = CustomDatasetInfo({0: "a", 5: "b"}, {"b": "second"})
    assert info.num_classes() == 2 and info.label_indices() == (0, 5) and not info.has_label(3)
    names = DatasetInfoLabelMapper(info)
    assert [names(0), names(5), names(torch.tensor(3))] == ["a", "second", "<unmapped:3>"]
    assert names.coverage(4) == (1, 3, 1)
    for error in (ValueError, KeyError):
        with pytest.raises(error, match="class 3 has no name"):
            DatasetInfoLabelMapper(info, fallback_format=None)(3)
    digits = CustomDatasetInfo({"2": "dog", "0": "cat"})
    assert digits.label_names() == {"2": "dog", "0": "cat"} and digits.index_to_label_name(2) == "dog"
    for wrong in ({"cat": "cat"}, {"01": "a", 1: "b"}, {-1: "a"}, {1.5: "a"}, {True: "a"}, {}, []):
        with pytest.raises(ValueError, match=r"integer-like|Duplicate|no name"):
            CustomDatasetInfo(wrong)
    with pytest.raises(ValueError, match="label_type"):
        DatasetInfoLabelMapper(info, "none")
    assert ImageNetInfo().index_to_description(3).startswith("tiger shark")
    with pytest.raises(TypeError, match="abstract"):
        DatasetInfo()


def test_images_in_the_order_of_their_source(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (20, 10), (i, i, i)).save(tmp_path / name / f"{i}.png")
    plain = IterableImageDataset(str(tmp_path))
    assert [target for _, target in plain] == [ImageDataset(tmp_path)[i][1] for i in range(6)] and len(plain) == 6
    data = IterableImageDataset(str(tmp_path), is_training=True, repeats=2)
    loader = create_loader(data, 16, 4, True, num_workers=2, use_prefetcher=False, persistent_workers=False)
    assert sum(len(images) for images, _ in loader) >= 8
    orders = []
    for epoch in range(2):
        data.set_epoch(epoch)
        data.transform = lambda image: image.getpixel((0, 0))[0]
        orders.append(list(data))
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) and len(orders[0]) == 12
    with pytest.raises(ValueError, match="num_samples"):
        IterableImageDataset(str(tmp_path), max_steps=3)
    with pytest.raises(ValueError, match="ImageDataset"):
        data.filename(0)


def test_padding_and_patches_of_pictures():
    assert RandomPad((100, 130))(PICTURE).size == (130, 100)
    assert Patchify(16)(PICTURE)["patches"].shape == (48, 768)
