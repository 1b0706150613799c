"""Data, weights of classes and attention of scripts, beside what they are made of."""

import json

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
    is_img_extension,
)
from imgzoo_timm.data.readers.class_map import load_class_map
from imgzoo_timm.data.readers.reader import Reader
from imgzoo_timm.loss import load_class_stats, load_class_weights, resolve_class_weights
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


def test_loaders_of_several_sizes(folder):
    def load(**options):
        data = create_dataset("", str(folder))
        return create_loader(data, (3, 16, 16), 2, num_workers=0, device=torch.device("cpu"), **options)

    loader = load(is_training=True, input_size_choices=[16, (24, 32)], batch_size_choices=[3, 1], num_batches=6)
    found = [tuple(images.shape) for images, _ in loader]
    assert len(found) == len(loader) == 6 and {*found} <= {(3, 3, 16, 16), (1, 3, 24, 32)}
    loader.sampler.set_epoch(1)
    assert sorted(tuple(images.shape) for images, _ in loader) == sorted(found)
    for options in (dict(input_size_choices=[16, 24]), dict(is_training=True, batch_size_choices=[1, 2]),
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
    for dense, target in ((False, [4]), (False, 2), (True, [1.0])):
        with pytest.raises(ValueError, match="class"):
            MultiLabelTarget(4, dense)(target)


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
    assert load_class_stats(None) is None is load_class_weights(None)


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
