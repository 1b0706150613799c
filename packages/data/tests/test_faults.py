"""Bad samples: raised, skipped or replaced by rule, written down, and never silently counted."""

import hashlib
import json

import numpy as np
import pytest
import torch
from data_helpers import noise, write_folder
from PIL import Image

from imgzoo.errors import DataError, UsageError
from imgzoo_data import create_dataset, create_loader, create_transform
from imgzoo_data.loader import Quarantine
from imgzoo_data.transforms.pipeline import as_array
from imgzoo_data.worker import Fault

EVAL = create_transform(input_size=(3, 16, 16))
TRAIN = create_transform(input_size=(3, 16, 16), training=True)
BROKEN = noise(1)[:300]


@pytest.fixture
def source(tmp_path):
    write_folder(tmp_path / "data", {"a": 10, "b": 10})
    (tmp_path / "data" / "a" / "3.jpg").write_bytes(BROKEN)
    (tmp_path / "data" / "b" / "5.jpg").write_bytes(b"")
    return create_dataset(f"folder:{tmp_path / 'data'}")


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_raises_in_one_sentence(source, workers):
    loader = create_loader(source, EVAL, 4, workers=workers)
    with pytest.raises(DataError, match=r"^sample 'a/3.jpg' cannot be used: [^\n]*$"):
        list(loader)
    loader.close()


def test_evaluation_never_replaces(source):
    with pytest.raises(UsageError, match="never replaces"):
        create_loader(source, EVAL, 4, bad="replace")


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_may_skip_and_says_which(source, workers, tmp_path):
    quarantine = tmp_path / "run" / "quarantine.jsonl"
    loader = create_loader(source, EVAL, 4, workers=workers, bad="skip", budget=2, quarantine=quarantine)
    for _ in range(2):
        seen = [i for batch in loader for i in batch.indices.tolist()]
        assert seen == [i for i in range(20) if i not in (3, 15)]
    loader.close()
    again = create_loader(source, EVAL, 4, bad="skip", budget=2, quarantine=quarantine)  # as a run that goes on
    assert sum(len(batch.indices) for batch in again) == 18
    rows = [json.loads(line) for line in quarantine.read_text().splitlines()]
    assert [row["path"] for row in rows] == ["a/3.jpg", "b/5.jpg"]
    assert rows[0]["sha256"] == hashlib.sha256(BROKEN).hexdigest() and rows[0]["error"]


def test_training_replaces_the_same_way_for_any_workers_and_world(source):
    def stream(workers, world):
        ranks = [
            create_loader(source, TRAIN, 8 // world, workers=workers, rank=r, world=world, budget=2)
            for r in range(world)
        ]
        found = [torch.cat([p.indices for p in parts]).tolist() for parts in zip(*ranks)]
        pixels = [torch.cat([p.images for p in parts]) for parts in zip(*ranks)]
        for loader in ranks:
            loader.close()
        return found, pixels

    expected, images = stream(0, 1)
    assert [len(row) for row in expected] == [8, 8]
    assert not {3, 15} & {i for row in expected for i in row}
    for workers, world in ((2, 1), (0, 2)):
        found, pixels = stream(workers, world)
        assert found == expected
    assert len(images) == len(pixels) == 2


def test_ranks_share_a_budget(tmp_path):
    file = tmp_path / "bad.jsonl"
    before = Quarantine(file, 9, "skip")
    before.take((Fault(7, "mended since", "", "bad"),))
    with file.open("ab") as written:
        written.write(b'no row\n["path"]\n{"path"\n' + b"[" * 100_000 + b"\n")
    ranks = [Quarantine(file, 2, "skip") for _ in range(2)]
    ranks[0].take((Fault(0, "a", "", "bad"),))
    ranks[1].take((Fault(0, "a", "", "bad"), Fault(1, "b", "", "bad")))
    with pytest.raises(DataError, match="3 bad samples exceed the budget of 2; the last is 'c'"):
        ranks[0].take((Fault(2, "c", "", "bad"),))
    assert [line.count(b"bad") for line in file.read_bytes().splitlines() if b"error" in line] == [1, 1, 1, 1]


def test_the_budget_ends_the_run(source):
    loader = create_loader(source, TRAIN, 5, budget=1)
    with pytest.raises(DataError, match="budget of 1"):
        for _ in range(3):
            list(loader)


def test_a_file_that_vanishes_is_a_bad_sample(source, tmp_path):
    (tmp_path / "data" / "a" / "0.jpg").unlink()
    loader = create_loader(source, EVAL, 20, bad="skip", budget=3)
    assert len(next(iter(loader)).indices) == 17


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_goes_on_after_a_wholly_bad_batch_and_not_without_any_sample(tmp_path, workers):
    write_folder(tmp_path / "data", {"a": 5})
    source = create_dataset(f"folder:{tmp_path / 'data'}")
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / "data" / "a" / name).write_bytes(b"x")
    loader = create_loader(source, EVAL, 2, bad="skip", budget=9, workers=workers)
    assert [batch.indices.tolist() for batch in loader] == [[2, 3], [4]]
    loader.close()
    for name in ("2.jpg", "3.jpg", "4.jpg"):
        (tmp_path / "data" / "a" / name).write_bytes(b"x")
    with pytest.raises(DataError, match="every sample is bad"):
        list(create_loader(source, EVAL, 2, bad="skip", budget=9))


def test_an_empty_source_and_wrong_options():
    class Empty(type(create_dataset("digits:"))):
        def __len__(self):
            return 0

    with pytest.raises(UsageError, match="empty"):
        create_loader(Empty(), TRAIN, 4)
    with pytest.raises(UsageError, match="raise, skip, replace"):
        create_loader("digits:", TRAIN, 4, bad="drop", training=True)
    with pytest.raises(UsageError, match="outside a world"):
        create_loader("digits:", TRAIN, 4, rank=2, world=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", ["npy", "tiff"])
def test_pixels_that_are_no_number_make_a_bad_image(tmp_path, kind, value):
    write_folder(tmp_path, {"a": 3, "b": 3})
    pixels = np.full((20, 20), 0.5, np.float32)
    pixels[3, 4:6] = value
    if kind == "npy":
        np.save(tmp_path / "a" / "9.npy", pixels)
    else:
        Image.fromarray(pixels).save(tmp_path / "a" / "9.tiff")
    source = create_dataset(f"folder:{tmp_path}")
    with pytest.raises(DataError, match="2 of 400 values of the image are no finite number"):
        list(create_loader(source, EVAL, 4))
    loader = create_loader(source, EVAL, 4, bad="skip", budget=1)
    assert sum(len(batch.indices) for batch in loader) == 6 and loader.quarantine.seen == {f"a/9.{kind}"}
    assert not source.describe().contradictions
    for declared in (None, (0.0, 2.0)):
        with pytest.raises(DataError, match="no finite number"):
            as_array(pixels, 3, values=declared)
