"""Data, weights of classes and attention of scripts, beside what they are made of."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from imgzoo_timm.data import (
    ImageDataset,
    MultiLabelTarget,
    RandomCropOrPad,
    ScheduledBatchSampler,
    ScheduledTransformDataset,
    center_crop_or_pad,
    create_dataset,
    create_loader,
    create_reader,
    crop_or_pad,
    fast_collate,
    is_img_extension,
)
from imgzoo_timm.data.readers.class_map import load_class_map
from imgzoo_timm.data.readers.reader import Reader
from imgzoo_timm.loss import compute_class_weights, load_class_stats, load_class_weights, resolve_class_weights
from imgzoo_timm.models import create_model
from imgzoo_timm.utils import AttentionExtract


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.new("RGB", (20, 10), (40 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_readers_and_datasets_of_readers(folder):
    reader = create_reader("", str(folder))
    assert isinstance(reader, Reader) and len(reader) == 4 and reader.class_to_idx == {"cat": 0, "dog": 1}
    file, target = reader[3]
    with Image.open(file) as image:
        assert image.getpixel((0, 0)) == (40, 0, 0) and target == 1
    assert reader.filename(3, basename=True) == "1.png"
    with Image.open(reader.filename(3, absolute=True)) as image:
        assert image.size == (20, 10)

    class Backward(Reader):
        def __len__(self):
            return len(reader)

        def __getitem__(self, index):
            return reader[len(self) - 1 - index]

        def _filename(self, index, basename=False, absolute=False):
            return f"backward-{index}"

    plain, own = create_dataset("", str(folder)), ImageDataset(folder, Backward())
    assert own[0][1] == plain[3][1] == 1 and own[0][0].size == (20, 10)
    assert own.filenames()[1] == "backward-1" and len(plain.filenames(absolute=True)) == 4
    assert ImageDataset(folder, Backward(), load_bytes=True)[0][0] == ImageDataset(folder, load_bytes=True)[3][0]
    assert is_img_extension(".PNG") and not is_img_extension(".txt")


def test_maps_of_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("b\na\n")
    assert load_class_map("classes.txt", str(tmp_path)) == {"b": 0, "a": 1} and load_class_map({"x": 3}) == {"x": 3}
    (tmp_path / "classes.json").write_text("{}")
    for name, error in (("none.txt", FileNotFoundError), ("classes.json", ValueError)):
        with pytest.raises(error, match="classes"):
            load_class_map(str(tmp_path / name))


def test_batches_of_several_sizes():
    samples = torch.utils.data.SequentialSampler(range(40))
    for drop in (True, False):
        sampler = ScheduledBatchSampler(samples, [2, 5], drop_last=drop, seed=3)
        batches = list(sampler)
        assert len(batches) == len(sampler) == len(sampler.schedule)
        assert [(batch[0][1], len(batch)) for batch in batches[:-1]] == list(sampler.schedule[:-1])
        places = [index for batch in batches for index, _ in batch]
        assert places == list(range(len(places))) and len(places) >= 36 and (drop or len(places) == 40)
        assert all(len({choice for _, choice in batch}) == 1 for batch in batches)
    again = ScheduledBatchSampler(samples, [2, 5], seed=3)
    first = again.schedule
    again.set_epoch(1)
    assert again.schedule != first and sorted(again.schedule) == sorted(first)
    assert len(ScheduledBatchSampler(samples, [30, 30], num_batches=5)) == 5
    assert sum(map(len, ScheduledBatchSampler(samples, [30], num_batches=5))) == 150
    growing = ScheduledBatchSampler(samples, [2, 5], choice_schedule="progressive", schedule_epochs=3)
    shares = [growing.choice_weights_for_epoch(epoch)[1].item() for epoch in range(4)]
    assert shares == pytest.approx([1 - shares[2], 0.5, shares[2], shares[2]]) and shares[2] > 0.7
    data = ScheduledTransformDataset([(torch.zeros(1), 7)] * 40, [lambda x: x + 1, lambda x: x + 2])
    for images, targets in DataLoader(data, batch_sampler=sampler):
        assert len(images.unique()) == 1 and set(targets.tolist()) == {7}
    for options in (dict(batch_sizes=[]), dict(batch_sizes=[0]), dict(batch_sizes=[1, 2], choice_weights=[1.0]),
                    dict(batch_sizes=[1], num_batches=0), dict(batch_sizes=[1], choice_schedule="warm"),
                    dict(batch_sizes=[1], choice_schedule="progressive")):  # fmt: skip
        with pytest.raises(ValueError):
            ScheduledBatchSampler(samples, **options)


def test_schedules_of_sizes_fill_what_there_is_and_keep_their_length():
    samples = torch.utils.data.SequentialSampler(range(101))
    budget = ScheduledBatchSampler(samples, [16, 8, 4], [0.2, 0.3, 0.5], seed=17)
    for epoch in range(4):
        budget.set_epoch(epoch)
        assert len(list(budget)) == len(budget) and 0 <= 101 - sum(map(len, budget)) < 4
    assert budget.average_batch_size == pytest.approx(0.2 * 16 + 0.3 * 8 + 0.5 * 4)
    moving = ScheduledBatchSampler(samples, [20, 10, 5], choice_schedule="progressive", schedule_epochs=4)
    sizes = torch.tensor(moving.batch_sizes).double()
    shares = torch.stack([moving.choice_weights_for_epoch(epoch) for epoch in range(4)])
    assert moving.average_batch_size == pytest.approx(float((shares @ sizes).mean()))
    assert len(moving) == int(101 / moving.average_batch_size)
    for epoch in range(4):
        moving.set_epoch(epoch)
        assert len(list(moving)) == len(moving)
    nearest = ScheduledBatchSampler(samples, [16, 12, 8, 4], [1, 0, 0, 1], choice_schedule="progressive",
                                    schedule_epochs=4, schedule_spread=0, schedule_random_mix=0)  # fmt: skip
    found = [nearest.choice_weights_for_epoch(epoch).tolist() for epoch in range(4)]
    assert found == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    mixed = ScheduledBatchSampler(samples, [8, 4, 2], [1, 0, 2], choice_schedule="progressive", schedule_epochs=3)
    assert all(mixed.choice_weights_for_epoch(epoch)[1] == 0 for epoch in range(3))
    few = torch.utils.data.SequentialSampler(range(3))
    for options in (dict(sampler=few), dict(sampler=few, choice_schedule="progressive", schedule_epochs=2),
                    dict(sampler=torch.utils.data.SequentialSampler(range(0))),
                    dict(batch_sizes=[8], choice_schedule="progressive", schedule_epochs=2),
                    dict(choice_schedule="progressive", schedule_epochs=2, schedule_spread=-1.0)):  # fmt: skip
        with pytest.raises(ValueError):
            ScheduledBatchSampler(**{"sampler": samples, "batch_sizes": [8, 4], **options})
    rows = ScheduledTransformDataset([(1, 2, "name")], [lambda x: x * 2])
    assert rows[0, 0] == (2, 2, "name")


LABELS = [[5, 1, 0], [2], [], [4]]


@pytest.fixture
def hf(tmp_path):
    """A saved data set with labels of all kinds."""
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=list("abcdef"))
    features = datasets.Features({
        "image": datasets.Image(), "labels": datasets.Sequence(names), "kind": names, "number": datasets.Value("int64"),
        "dark": datasets.Value("bool"), "at": {"far": datasets.Value("float64")},
        "hot": datasets.Sequence(datasets.Value("int64")),
    })  # fmt: skip
    rows = {"image": [Image.new("RGB", (9, 9), (i, 0, 0)) for i in range(4)], "labels": LABELS, "kind": [1, 0, 5, 1],
            "number": [7, 3, 7, 9], "dark": [True, False, False, True], "hot": [[1, 0, 1], [0, 0, 1], [0] * 3, [1] * 3],
            "at": [{"far": 0.5}, {"far": 0.0}, {"far": 0.0}, {"far": 2.0}]}  # fmt: skip
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "rows")
    return f"/{tmp_path / 'rows'}"


@pytest.mark.parametrize("scheme", ["hfds", "hfids"])
def test_targets_of_data_sets_are_what_stands_there(hf, scheme):
    def targets(key, **options):
        data = create_dataset(scheme + hf, split="train", target_key=key, **options)
        return [target for _, target in data], data.reader.class_to_idx

    six = {name: i for i, name in enumerate("abcdef")}
    assert targets("labels") == (LABELS, six) and targets("kind") == ([1, 0, 5, 1], six)
    assert targets("number") == ([7, 3, 7, 9], {}) and targets("at/far")[0] == [0.5, 0, 0, 2]
    gaps = {"f": 9, "b": 4, "a": 0, "c": 2, "e": 7}
    assert targets("labels", class_map=gaps) == ([[9, 4, 0], [2], [], [7]], gaps)
    assert targets("kind", class_map={i: 5 - i for i in range(6)})[0] == [4, 5, 0, 4]
    assert targets("dark,at/far") == ([[0, 1], [], [], [0, 1]], {"dark": 0, "at/far": 1})
    assert targets("dark,at/far", class_map={"dark": 3, "at/far": 1})[0] == [[3, 1], [], [], [3, 1]]
    assert targets("hot", target_format="multihot", class_map={0: 1, 2: 0})[0][:2] == [[1, 1], [1, 0]]
    dense = targets("labels", target_transform=MultiLabelTarget(6))[0]
    assert dense[0].tolist() == [1, 1, 0, 0, 0, 1] and dense[2].sum() == 0
    for key, options, said in (
        ("labels", dict(class_map={"a": 0}), "class_map has no 'f'"), ("dark,labels", {}, "yes or no each"),
        ("dark,dark", {}, "twice"), ("hot", dict(target_format="dense"), "indices or multihot"),
        ("dark,number", dict(target_format="multihot"), "target_format out"),
        ("hot", dict(target_format="multihot", class_map={"a": 0}), "source class index"),
    ):  # fmt: skip
        with pytest.raises(Exception, match=said):
            targets(key, **options)


@pytest.mark.parametrize("scheme", ["hfds", "hfids"])
def test_several_labels_reach_the_batches(hf, scheme):
    data = create_dataset(scheme + hf, split="train", target_key="labels", target_transform=MultiLabelTarget(6),
                          is_training=True)  # fmt: skip
    loader = create_loader(data, (3, 8, 8), 2, is_training=True, no_aug=True, num_workers=0, device=torch.device("cpu"))
    found = torch.cat([targets for _, targets in loader])
    assert found.shape == (4, 6) and found.sum() == 5 and found.dtype == torch.float32 and len(data.reader) == 4


def test_batches_hold_classes_as_long():
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    for target in (np.int32(1), np.uint8(1), True, np.float32(1)):
        assert fast_collate([(image, target)] * 2)[1].dtype == torch.int64
    assert fast_collate([(image, torch.tensor([1.0, 0]))] * 2)[1].dtype == torch.float32
    with pytest.raises(ValueError, match="use_prefetcher"):
        fast_collate([(image, 0.5)] * 2)


def test_loaders_of_several_sizes(folder):
    def load(**options):
        data = create_dataset("", str(folder))
        return create_loader(data, (3, 16, 16), 2, num_workers=0, device=torch.device("cpu"), **options)

    loader = load(is_training=True, input_size_choices=[16, (24, 32)], batch_size_choices=[3, 1], num_batches=6)
    found = [tuple(images.shape) for images, _ in loader]
    assert len(found) == len(loader) == 6 and {*found} <= {(3, 3, 16, 16), (1, 3, 24, 32)}
    loader.sampler.set_epoch(1)
    again = [tuple(images.shape) for images, _ in loader]
    assert again != found and len(again) == 6 and {*again} <= {*found}
    with pytest.raises(ValueError, match="positive"):
        load(is_training=True, input_size_choices=[(3, 16, 0), 16])
    for options in (dict(input_size_choices=[16, 24]), dict(is_training=True, batch_size_choices=[1, 2]),
                    dict(is_training=True, input_size_choices=[16, 24], use_multi_epochs_loader=True),
                    dict(is_training=True, input_size_choices=[16, 24], batch_size_choices=[1])):  # fmt: skip
        with pytest.raises(ValueError, match="several sizes"):
            load(**options)


def test_parts_of_images_and_targets():
    image = Image.new("RGB", (20, 10), (9, 9, 9))
    padded = crop_or_pad(image, -2, -3, 16, 30)
    assert padded.size == (30, 16) and padded.getpixel((0, 0)) == (0, 0, 0) and padded.getpixel((3, 2)) == (9, 9, 9)
    assert center_crop_or_pad(image, 16).size == (16, 16) and RandomCropOrPad((12, 30))(image).size == (30, 12)
    assert MultiLabelTarget(4)([0, 2]).tolist() == [1, 0, 1, 0] and MultiLabelTarget(2)([]).tolist() == [0, 0]
    assert MultiLabelTarget(2, dense=True)([0.5, 1]).tolist() == [0.5, 1]
    for dense, target in ((False, [4]), (False, 2), (True, [1.0]), (False, [1.0]), (False, [True]), (True, [2.0] * 4),
                          (True, [float("nan")] * 4)):  # fmt: skip
        with pytest.raises(ValueError, match="class"):
            MultiLabelTarget(4, dense)(target)
    with pytest.raises(ValueError, match="num_classes"):
        MultiLabelTarget(0)


def test_weights_of_classes_from_files(tmp_path):
    path = tmp_path / "stats.json"
    path.write_text(json.dumps({"pos_counts": [1, 5, 2], "num_samples": 10}))
    stats = load_class_stats(str(path))
    assert resolve_class_weights("neg_pos", "pos_weight", stats).tolist() == [9, 1, 4]
    assert resolve_class_weights("inv_freq", class_stats=stats).mean() == pytest.approx(1)
    assert load_class_weights("1,2,3").tolist() == [1, 2, 3] and load_class_weights("2.5") == 2.5
    for value, kind, told in (("neg_pos", "class_weight", stats), ("inv_freq", "class_weight", None),
                              ("nonsense", "class_weight", stats), (str(path), "class_weight", None)):  # fmt: skip
        with pytest.raises(ValueError):
            resolve_class_weights(value, kind, told)
    (tmp_path / "own.json").write_text(json.dumps({"pos_weight": [4, 5]}))
    assert load_class_weights(str(tmp_path / "own.json"), "pos_weight").tolist() == [4, 5]
    with pytest.raises(ValueError, match="pos_counts"):
        load_class_stats(str(tmp_path / "own.json"))
    assert load_class_stats(None) is None is load_class_weights(None) is load_class_weights(" ")
    for bad in ("1,-2", "nan", True, [1.0, float("inf")], -1):
        with pytest.raises(ValueError, match="number"):
            load_class_weights(bad)
    for counts, total, options in (([5, 1], 4, {}), ([], 4, {}), ([-1], 4, {}), ([1], 4, dict(beta=1.0))):
        for method in ("inv_freq", "neg_pos"):
            with pytest.raises(ValueError, match=r"counts|beta"):
                compute_class_weights(counts, total, method, **options)


@pytest.mark.parametrize("method", ["fx", "hook"])
def test_attention_adds_up_to_one(method):
    x = torch.randn(2, 3, 160, 160)
    found = AttentionExtract(create_model("test_vit"), method=method)(x)
    assert len(found) == 6
    for name, weights in found.items():
        assert name.startswith("blocks.") and weights.shape[2] == weights.shape[3]
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:3]))
    with pytest.raises(RuntimeError, match="is called nothing"):
        AttentionExtract(create_model("test_vit"), names=["nothing"], method=method)
    with pytest.raises(ValueError, match="fx or hook"):
        AttentionExtract(create_model("test_vit"), method="guess")


def test_names_of_files_are_whole_where_it_is_asked(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / split / name / "0.png")
    data = create_dataset("", str(tmp_path), split="train")
    assert data.filename(0) == "cat/0.png" and data.filename(0, basename=True) == "0.png"
    assert data.filenames(absolute=True) == [str(tmp_path / f"train/{name}/0.png") for name in ("cat", "dog")]
