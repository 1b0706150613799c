"""Images, batches and class names of imgzoo-timm beside the peer's."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm_kit import both, ours, same_tensors, small, theirs

pytestmark = pytest.mark.parity

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
EVALS = [dict(), dict(input_size=(3, 32, 48)), dict(input_size=64, crop_mode="squash"),
     dict(input_size=64, crop_pct=1.0),
         dict(input_size=64, crop_mode="border", interpolation="bicubic"), dict(input_size=64, normalize=False),
         dict(input_size=64, use_prefetcher=True), dict(input_size=64, crop_border_pixels=4),
         dict(input_size=64, is_training=True, no_aug=True)]  # fmt: skip


@pytest.mark.parametrize("options", EVALS, ids=lambda options: "-".join(options) or "plain")
def test_evaluation_transforms_give_the_same_pixels(options):
    mine, other = (create(**options) for create in both("data", "create_transform"))
    same_tensors(mine(PICTURE), other(PICTURE))


@pytest.mark.parametrize("options", [dict(), dict(scale=(0.3, 1.0), interpolation="bicubic"),
     dict(hflip=0.0, vflip=0.5),
                                     dict(color_jitter=0.3, interpolation="random"),
                                     dict(train_crop_mode="rkrc")])  # fmt: skip
def test_training_transforms_draw_as_the_peer_does(options):
    results = []
    for create in both("data", "create_transform"):
        random.seed(3), torch.manual_seed(3), np.random.seed(3)
        results.append(create(48, is_training=True, **options)(PICTURE))
    same_tensors(*results)


def test_training_transforms_have_the_steps():
    for options in (dict(auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25), dict(color_jitter=0.4, separate=True),
                    dict(grayscale_prob=0.2, gaussian_blur_prob=0.1, color_jitter_prob=0.5)):  # fmt: skip
        rows = []
        for create in both("data", "create_transform"):
            made = create(224, is_training=True, **options)
            parts = made if isinstance(made, tuple) else (made,)
            rows.append([[type(step).__name__ for step in part.transforms] for part in parts])
        assert rows[0] == rows[1]


MIXES = [dict(), dict(cutmix_alpha=1.0), dict(mixup_alpha=0.0, cutmix_alpha=1.0), dict(cutmix_minmax=(0.2, 0.8)),
         dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.5, mode="elem"), dict(cutmix_alpha=1.0, mode="pair"),
         dict(mixup_alpha=0.8, cutmix_alpha=1.0, correct_lam=False)]  # fmt: skip


@pytest.mark.parametrize("options", MIXES, ids=lambda options: "-".join(options) or "plain")
def test_mixup_draws_as_the_peer_does(options):
    for seed in range(6):
        results = []
        for mixup in both("data", "Mixup"):
            np.random.seed(seed)
            x = torch.arange(6 * 3 * 16 * 16.0).reshape(6, 3, 16, 16)
            results.append(mixup(num_classes=5, **options)(x, torch.arange(6) % 5))
        same_tensors(results[0], results[1])


def test_data_configurations():
    models = [create("resnet18") for create in both("models", "create_model")]
    for args in (None, {}, dict(img_size=128), dict(input_size=(1, 64, 64), mean=[0.5], std=[0.2]),
    dict(crop_pct=0.9)):  # fmt: skip
        for options in ({}, dict(use_test_size=True)):
            mine, other = (resolve(args, model=model, **options) for resolve, model in
                           zip(both("data", "resolve_data_config"), models))  # fmt: skip
            assert mine == other


# training


def test_batches_of_several_sizes():
    samples = torch.utils.data.SequentialSampler(range(40))
    for options in (dict(), dict(choice_weights=(0.7, 0.2, 0.1)), dict(schedule_spread=0.3, schedule_random_mix=0.4)):
        mine, other = (make(samples, (2, 4, 5), choice_schedule="progressive", schedule_epochs=4, **options)
                       for make in both("data", "ScheduledBatchSampler"))  # fmt: skip
        for epoch in range(6):
            same_tensors(*(each.choice_weights_for_epoch(epoch) for each in (mine, other)), 1e-6)
    for make in both("data", "ScheduledBatchSampler"):
        kept = [len(list(make(samples, [3, 5], num_batches=count))) for count in (2, 4)]
        assert kept == [2, 4] and all(size == 3 for _, size in make(samples, [3]).schedule)
        assert sum(map(len, make(samples, [3], drop_last=False))) == 40
        for bad in (dict(batch_sizes=[]), dict(batch_sizes=[0]), dict(batch_sizes=[2, 3], choice_weights=[1.0]),
                    dict(batch_sizes=[2], num_batches=0), dict(batch_sizes=[2], choice_schedule="warm")):  # fmt: skip
            with pytest.raises(ValueError):
                make(samples, **bad)


def test_parts_of_images_and_targets_of_several_labels():
    for size in ((16, 16), (30, 8), (7, 40)):
        same_tensors(*(torch.from_numpy(np.array(crop(PICTURE.resize((20, 11)), size)))
                       for crop in both("data", "center_crop_or_pad")))  # fmt: skip
        same_tensors(*(torch.from_numpy(np.array(crop(PICTURE.resize((20, 10)), -3, 5, *size)))
                       for crop in both("data", "crop_or_pad")))  # fmt: skip
    for options, target in ((dict(), [0, 2]), (dict(), []), (dict(dense=True), [0, 0.5, 1, 0]),
                            (dict(), torch.tensor([1, 3]))):  # fmt: skip
        same_tensors(*(make(4, **options)(target) for make in both("data", "MultiLabelTarget")))
    for make in both("data", "MultiLabelTarget"):
        for options, target in ((dict(), 2), (dict(), [7]), (dict(dense=True), [1.0])):
            with pytest.raises(ValueError):
                make(4, **options)(target)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the peer leaves files open
def test_readers_of_folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(3):
            PICTURE.save(tmp_path / name / f"{i}.png")
    (tmp_path / "classes.txt").write_text("b\na\n")
    mine, other = (make("", str(tmp_path)) for make in both("data", "create_reader"))
    assert (len(mine), mine.class_to_idx) == (len(other), other.class_to_idx)
    for i in range(6):
        (file, target), (opened, wanted) = mine[i], other[i]
        with opened:
            assert file.read() == opened.read() and target == wanted
        for options in ({}, dict(basename=True), dict(absolute=True)):
            assert mine.filename(i, **options) == other.filename(i, **options)
    maps = both("data.readers.class_map", "load_class_map")
    assert maps[0]("classes.txt", str(tmp_path)) == maps[1]("classes.txt", str(tmp_path))
    datasets = [make(str(tmp_path)) for make in both("data", "ImageDataset")]
    assert [each[4][1] for each in datasets] == [1, 1]
    assert datasets[0].filenames(basename=True) == datasets[1].filenames(basename=True)
    model = small("test_vit")
    for args in ({}, dict(img_size=64)):
        assert len({str(tell(model, args)) for tell in both("data", "resolve_input_data_config")}) == 1


def test_weights_of_classes_from_files(tmp_path):
    (tmp_path / "stats.json").write_text('{"pos_counts": [1, 5, 2], "num_samples": 10}')
    (tmp_path / "own.json").write_text('{"pos_weight": [4, 5, 6]}')
    (tmp_path / "rows.txt").write_text("1\n2\n3\n")
    loads, stats, resolves = (both("loss", name) for name in
                              ("load_class_weights", "load_class_stats", "resolve_class_weights"))  # fmt: skip
    told = [load(str(tmp_path / "stats.json")) for load in stats]
    for value, kind in ((str(tmp_path / "own.json"), "pos_weight"), (str(tmp_path / "rows.txt"), "class_weight"),
                        ("1,2,3", "class_weight"), ((1, 2), "class_weight"), ("neg_pos", "pos_weight"),
                        ("inv_freq", "class_weight"), ("effective_num", "class_weight")):  # fmt: skip
        same_tensors(*(resolve(value, kind, each) for resolve, each in zip(resolves, told)))
    for value in (None, 2.0, 3, "2.5"):
        assert loads[0](value) == loads[1](value)
    for load in loads:
        for value in ("nonsense", str(tmp_path / "own.json")):
            with pytest.raises(ValueError):
                load(value)
    for resolve, each in zip(resolves, told):
        for value, kind, known in (("neg_pos", "class_weight", each), ("inv_freq", "class_weight", None)):
            with pytest.raises(ValueError):
                resolve(value, kind, known)


SIDES = [(90, 120), (500, 20), (33, 17), (7, 900), (333, 331)]


def test_sizes_and_patches_of_sequences():
    sizes = both("data.naflex_transforms", "get_image_size_for_seq")
    for sides in SIDES:
        for length in (1, 3, 7, 20, 48, 333, 576):
            for options in (dict(), dict(max_ratio=1.1), dict(patch_size=(16, 8))):
                mine, other = (size(sides, max_seq_len=length, **options) for size in sizes)
                assert mine[1] == other[1] and mine[0] == pytest.approx(other[0], abs=1e-4, rel=1e-3), (
                    sides,
                    length,
                    options,
                )
    image = torch.randn(3, 40, 70)
    for options in ({}, dict(channels_last=False), dict(flatten_patches=False), dict(include_info=False),
                    dict(flatten_patches=False, channels_last=False)):  # fmt: skip
        same_tensors(*(cut(image, (16, 8), **options) for cut in both("data", "patchify_image")), 0)
    mine, other = (make(16)(PICTURE) for make in both("data", "Patchify"))
    assert list(mine) == list(other)
    same_tensors(mine.values(), other.values(), 0)
    for name in ("ResizeToSequence", "CenterCropToSequence"):
        for sides in SIDES[:3]:
            for length in (20, 200):
                mine, other = (make(16, length)(PICTURE.resize(sides)) for make in both("data", name))
                same_tensors(torch.from_numpy(np.array(mine)), torch.from_numpy(np.array(other)), 0)
    for name in ("ResizeKeepRatioToSequence", "RandomCropToSequence"):
        assert len({make(16, 48)(PICTURE).size for make in both("data", name)}) == 1
    random.seed(0)
    areas = [np.mean([np.prod(make(16, 48, scale=(0.3, 0.6))(PICTURE).size) for _ in range(60)])
             for make in both("data", "RandomResizedCropToSequence")]  # fmt: skip
    assert areas[0] == pytest.approx(areas[1], rel=0.1)


@pytest.mark.parametrize("options", [
    dict(), dict(is_training=True), dict(patchify=True), dict(is_training=True, no_aug=True, patchify=True),
    dict(is_training=True, patchify=True, re_prob=0.2, auto_augment="rand-m9"), dict(crop_border_pixels=4),
    dict(patchify=True, use_prefetcher=True), dict(patchify=True, naflex=False)])  # fmt: skip
def test_transforms_of_sequences_have_the_steps(options):
    made = [
        create(224, **{"naflex": True, "max_seq_len": 50, **options}) for create in both("data", "create_transform")
    ]
    assert len({str([type(step).__name__ for step in each.transforms]) for each in made}) == 1
    if not options.get("is_training") or options.get("no_aug"):
        mine, other = (each(PICTURE) for each in made)
        if options.get("patchify"):
            mine, other = mine.values(), other.values()
        same_tensors(mine, other)


class Pictures(torch.utils.data.Dataset):
    transform = target_transform = None

    def __init__(self, count=37):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image = Image.fromarray(np.full((40 + i % 40, 90 - i % 40, 3), i % 250, np.uint8))
        return (self.transform(image) if self.transform else image), i % 5


def batches_of(loader):
    return [({key: getattr(value, "shape", value) for key, value in row.items()}, targets.shape, row["patches"].dtype,
             targets.dtype) for row, targets in loader]  # fmt: skip


@pytest.mark.parametrize("prefetch", [False, True])
def test_batches_of_sequences(prefetch):
    for args in ((16384, 128), (16384, 576), (16384, 576, 20, 8), (1000, 576, None, 8), (16384, 700, None, 8, "round"),
                 (16384, 576, None, 8, "ceil")):  # fmt: skip
        assert len({size(*args) for size in both("data", "calculate_naflex_batch_size")}) == 1, args
    shared = dict(train_seq_lens=(4, 9, 16), max_seq_len=9, batch_size=4, num_workers=0, persistent_workers=False,
                  pin_memory=False, color_jitter=0, use_prefetcher=prefetch, device=torch.device("cpu"))  # fmt: skip
    mine, other = (make(Pictures(), patch_size=16, **shared) for make in both("data", "create_naflex_loader"))
    assert len(mine) == len(other) and batches_of(mine) == batches_of(other)
    for (rows, targets), (wanted, classes) in zip(mine, other):
        same_tensors([targets, rows["patch_coord"]], [classes, wanted["patch_coord"]], 0)
        same_tensors(rows["patches"][rows["patch_valid"]], wanted["patches"][wanted["patch_valid"]], 1e-4)
    kinds = []
    for make, mixup in zip(both("data", "create_naflex_loader"), both("data", "NaFlexMixup")):
        for options in (dict(patch_size=16), dict(patch_size_choices=[8, 16]), dict(mixup_fn=mixup(num_classes=5))):
            loader = make(Pictures(400), is_training=True, **options, **shared)
            rows = batches_of(loader)
            assert sum(targets[0] for _, targets, *_ in rows) == 400 and len(rows) == len(loader)
            kinds.append({(row["patches"][2:], row["seq_len"], targets[1:], kind, other) for row, targets, kind, other
                          in rows})  # fmt: skip
            sizes = {row["seq_len"]: set() for row, *_ in rows}
            for row, targets, *_ in rows[:-1]:
                sizes[row["seq_len"]].add(targets[0])
            assert sizes.keys() <= {4, 9, 16} and all(max(each) <= max(1, 64 // size) for size, each in sizes.items())
    assert kinds[:3] == kinds[3:]


def test_mixing_of_images_of_any_shape():
    sizes = [(1, 8, 8 + 4 * i) for i in range(5)]
    shares, pairs = [], []
    for mix in both("data", "mix_batch_variable_size"):
        for cut in (False, True):
            drawn = []
            for seed in range(400):
                random.seed(seed), np.random.seed(seed)
                images = [torch.full(size, float(i)) for i, size in enumerate(sizes)]
                mixed, lam, partner = mix(images, mixup_alpha=0.0 if cut else 1.0, cutmix_alpha=1.0 if cut else 0.0)
                for i, other in partner.items():
                    assert partner[other] == i and mixed[i].shape == sizes[i]
                    expected = lam[i] * i + (1 - lam[i]) * other
                    assert mixed[i].mean().item() == pytest.approx(expected, abs=1e-4)
                assert lam[4] == 1.0 and 4 not in partner
                drawn += lam[:4]
            shares.append(np.mean(drawn))
        pairs.append(pairs)
    np.testing.assert_allclose(shares[:2], shares[2:], atol=0.04)
    for target, options in ((torch.tensor([0, 1, 2]), dict(smoothing=0.3)),
                            (torch.eye(3), dict(smoothing=0.3, multi_label=True))):  # fmt: skip
        same_tensors(*(make(target, {0: 1, 1: 0}, [0.7, 0.6, 1.0], num_classes=3, **options)
                       for make in both("data", "pairwise_mixup_target")))  # fmt: skip


@pytest.mark.parametrize("spatial", ["region", "patch"])
def test_patches_are_erased_as_often(spatial):
    coord, shares = torch.cartesian_prod(torch.arange(20), torch.arange(20))[None], []
    for erasing in both("data.naflex_random_erasing", "PatchRandomErasing"):
        random.seed(0), torch.manual_seed(0), np.random.seed(0)
        erase, gone = erasing(1.0, device="cpu", spatial_mode=spatial), []
        for _ in range(200):
            patches = torch.ones(1, 400, 1, 1, 3)
            erase(patches, coord, torch.ones(1, 400, dtype=torch.bool))
            gone.append((patches == 0).float().mean().item())
        shares.append([np.mean(gone), np.min(gone), np.max(gone)])
    np.testing.assert_allclose(*shares, atol=0.03)


def test_policies_hold_the_operations():
    def rows(policy):
        ops = getattr(policy, "ops", None) or [op for row in policy.policy for op in row]
        return sorted((op.name, op.prob, op.magnitude, op.magnitude_std) for op in ops)

    module = "data.auto_augment"
    for text in ("rand-m9-n3-mstd0.5", "rand-m9-mstd0.5-inc1", "rand-m7-tweights", "rand-m7-p0.3-t3aw"):
        mine, other = (make(text, {}) for make in both(module, "rand_augment_transform"))
        assert rows(mine) == rows(other) and mine.num_layers == other.num_layers
        assert (mine.choice_weights is None) == (other.choice_weights is None)
        if mine.choice_weights is not None:
            weights = [{op.name: round(each, 6) for op, each in zip(made.ops, made.choice_weights)}
                       for made in (mine, other)]  # fmt: skip
            assert weights[0] == weights[1]
    for own in (["Rotate", "Color"], {"Rotate": 1, "Color": 3}):
        mine, other = (make("rand-m9", {}, own) for make in both(module, "rand_augment_transform"))
        assert rows(mine) == rows(other)
        assert np.array_equal(mine.choice_weights, other.choice_weights)
    for text in ("original", "originalr", "v0", "v0r", "3a", "original-mstd0.5"):
        mine, other = (make(text, {}) for make in both(module, "auto_augment_transform"))
        assert rows(mine) == rows(other)
    mine, other = (make("augmix-m5-w4-d2-b1", {}) for make in both(module, "augment_and_mix_transform"))
    assert rows(mine) == rows(other)
    assert {name: getattr(mine, name) for name in ("alpha", "width", "depth", "blended")} == {
        name: getattr(other, name) for name in ("alpha", "width", "depth", "blended")}  # fmt: skip
    names = [op.name for op in ours("data", "rand_augment_ops")()]
    assert names == [op.name for op in theirs("data", "rand_augment_ops")()]
    hparams = dict(img_mean=(1, 2, 3), interpolation=Image.Resampling.BILINEAR, translate_pct=0.2)
    rows_of = ours("data", "auto_augment_policy")
    names += [op.name for text in ("original", "v0", "3a") for row in rows_of(text) for op in row]
    for name in sorted({*names} - {"GaussianBlurRand"}):
        found = [{np.array(op(PICTURE)).tobytes() for _ in range(24)} for op in (
                 make(name, 1.0, 7, hparams) for make in both(module, "AugmentOp"))]  # fmt: skip
        assert found[0] & found[1] and (len(found[0]) > 4 or found[0] == found[1]), name


def test_names_of_classes():
    told = {"a": "x", "b": "y"}
    infos = [(make(["a", "b"], told), make({0: "a", 5: "b"}, told), net())
             for make, net in zip(both("data", "CustomDatasetInfo"), both("data", "ImageNetInfo"))]  # fmt: skip
    for mine, other in zip(*infos):
        for name in ("num_classes", "label_names", "label_descriptions", "label_indices"):
            assert getattr(mine, name)() == getattr(other, name)(), name
        assert mine.label_descriptions(True, True) == other.label_descriptions(True, True)
        for number in other.label_indices()[:3]:
            assert mine.index_to_description(number, True) == other.index_to_description(number, True)
        for kind in ("name", "description", "detailed"):
            maps = [make(info, kind) for make, info in zip(both("data", "DatasetInfoLabelMapper"), (mine, other))]
            for number in (0, 3, 5, 5000):
                assert maps[0](number) == maps[1](number)
            assert maps[0].coverage(4) == maps[1].coverage(4)
    for size in ((12, 16), (6, 16), (4, 4)):
        mine, other = ({tuple(make.get_params(PICTURE.resize((10, 8)), size)) for _ in range(400)}
                       for make in both("data", "RandomPad"))  # fmt: skip
        assert size == (4, 4) or mine == other


# networks by their configurations
