"""What an epoch draws: classes evened out, any sampler, sizes by schedule; and batches of other things than sources."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from data_helpers import encode, noise, photo, tar_bytes, write_folder
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler

from imgzoo.errors import DataError, UsageError
from imgzoo_data import DatasetInfo, ImageNetInfo, Mixer, SizeSchedule, create_dataset, create_loader, create_transform
from imgzoo_data.config import resolve_data_config
from imgzoo_data.order import Choice
from imgzoo_data.samplers import Evened

TRAIN = create_transform(training=True, input_size=(3, 8, 8))


@pytest.fixture
def uneven(tmp_path):
    write_folder(tmp_path / "d", {"a": 64, "b": 16, "c": 4})
    return create_dataset(f"folder:{tmp_path / 'd'}")


def drawn(source, epochs=1, **options):
    loader = create_loader(source, TRAIN, options.pop("batch_size", 7), **options)
    rows = [index for _ in range(epochs) for batch in loader for index in batch.indices.tolist()]
    loader.close()
    return rows


@pytest.mark.parametrize(("sampler", "wanted"), [("balanced", [28, 28, 28]), ("sqrt", [48, 24, 12])])
def test_classes_are_evened_out(uneven, sampler, wanted):
    rows = drawn(uneven, sampler=sampler)
    counts = np.bincount(uneven.targets()[rows])
    assert counts.sum() == 84 and np.abs(counts - wanted).max() <= 1
    seen = np.bincount(rows, minlength=84)
    for number in range(3):  # within a class every sample as often as any other
        own = seen[uneven.targets() == number]
        assert own.max() - own.min() <= 1
    assert len({*drawn(uneven, 20, sampler=sampler)}) == 84


@pytest.mark.parametrize("sampler", ["balanced", "sqrt"])
def test_an_evened_epoch_is_a_function_of_seed_and_epoch(uneven, sampler):
    whole = drawn(uneven, 2, sampler=sampler, seed=5)
    assert whole == drawn(uneven, 2, sampler=sampler, seed=5, workers=1) != drawn(uneven, 2, sampler=sampler, seed=6)
    loader = create_loader(uneven, TRAIN, 7, sampler=sampler, seed=5, epoch=1, start_step=2)
    assert [i for batch in loader for i in batch.indices.tolist()] == whole[84 + 14 :]
    ranks = [create_loader(uneven, TRAIN, 7, sampler=sampler, seed=5, rank=rank, world=2) for rank in range(2)]
    steps = [[i for batch in step for i in batch.indices.tolist()] for step in zip(*ranks)]
    assert [i for step in steps for i in step] == whole[:84]


def test_evened_counts_hold_in_the_mean():
    classes = np.repeat(np.arange(7), [1, 2, 3, 50, 5, 6, 40])
    draw = Evened(classes, 0, 1.0)
    mean = np.mean([np.bincount(classes[draw(epoch)], minlength=7) for epoch in range(400)], axis=0)
    assert np.abs(mean - 107 / 7).max() < 0.15


def test_samplers_that_do_not_fit_are_refused(uneven):
    with pytest.raises(UsageError, match="shuffle, balanced, sqrt"):
        create_loader(uneven, TRAIN, 4, sampler="even")
    with pytest.raises(UsageError, match="for training"):
        create_loader(uneven, create_transform(), 4, sampler="balanced")
    with pytest.raises(UsageError, match="sample 84 of a source of 84"):
        list(create_loader(uneven, TRAIN, 1, sampler=[84]))
    numbers = create_dataset([(noise(0), 0.5), (noise(1), 1.5)])
    with pytest.raises(UsageError, match="numbers to predict"):
        create_loader(numbers, TRAIN, 1, sampler="balanced")


@pytest.mark.parametrize("workers", [0, 1])
def test_sizes_are_scheduled_over_any_sampler(uneven, workers):
    schedule = SizeSchedule.images((8, 16), (8, 4))
    assert SizeSchedule.images(np.array([8, 16]), [np.int64(8), 4]) == schedule
    assert resolve_data_config(img_size=np.int64(32)).input_size == (3, 32, 32)
    sequences = SizeSchedule.sequences([64, 128], 1024, patches=[16])
    assert SizeSchedule.sequences(np.array([64, 128]), np.int64(1024), patches=np.array([16])) == sequences
    erase = create_transform(training=True, input_size=(3, 8, 8), erase=0.5, erase_count=np.int64(2)).erase
    assert erase.count == (2, 2)
    sampler = SubsetRandomSampler(range(0, 84, 2))
    loader = create_loader(uneven, TRAIN, 8, sampler=sampler, schedule=schedule, workers=workers)
    batches = list(loader)
    loader.close()
    rows = [i for batch in batches for i in batch.indices.tolist()]
    assert not {i % 2 for i in rows} - {0} and len(rows) == len(set(rows)) <= 42
    assert {batch.images.shape[2] for batch in batches} == {8, 16}


@pytest.mark.parametrize(
    "make",
    [
        lambda: SizeSchedule.images((0, 16), 4),
        lambda: SizeSchedule.images((16, -8), 4),
        lambda: SizeSchedule.images((16,), 0),
        lambda: SizeSchedule.images((), 4),
        lambda: SizeSchedule.images((8, 16), 4, weights=(0.0, 0.0)),
        lambda: SizeSchedule.images((8, 16), 4, weights=(1.0, -1.0)),
        lambda: SizeSchedule.images((8, 16), 4, weights=(1.0, float("nan"))),
        lambda: SizeSchedule.images((8, 16), 4, random_mix=2),
        lambda: SizeSchedule.images((8, 16), 4, schedule="progressive", epochs=0),
        lambda: SizeSchedule.sequences((0, 16), 64),
        lambda: SizeSchedule.sequences((16,), 64, patches=(0,)),
        lambda: SizeSchedule.sequences((16,), 64, patches=(8, 16), patch_weights=(1,)),
        lambda: SizeSchedule((Choice((8, 8), -1),)),
    ],
)
def test_senseless_size_schedules_are_refused(make):
    with pytest.raises(UsageError):
        make()


PAIRS = [(photo(i, (20, 16)), i % 3) for i in range(6)]


class Pairs(Dataset):
    classes = ("red", "green", "blue")

    def __len__(self):
        return len(PAIRS)

    def __getitem__(self, index):
        return PAIRS[index]


class Stream(IterableDataset):
    classes = ("red", "green", "blue")

    def __iter__(self):
        return iter(PAIRS)


@pytest.mark.parametrize(
    "given", [PAIRS, tuple(PAIRS), Pairs(), [(encode(i), n) for i, n in PAIRS]], ids=["list", "tuple", "torch", "files"]
)
def test_pairs_and_torch_data_sets_go_straight_into_a_loader(given):
    loader = create_loader(given, create_transform(input_size=(3, 8, 8)), 4, workers=1)
    assert torch.cat([batch.targets for batch in loader]).tolist() == [0, 1, 2, 0, 1, 2]
    loader.close()
    assert loader.source.num_classes == 3
    assert list(loader.source.class_names) == (
        ["red", "green", "blue"] if isinstance(given, Pairs) else ["0", "1", "2"]
    )


def test_labels_of_pairs_may_be_names_vectors_or_numbers():
    images = [noise(i) for i in range(3)]
    names = create_dataset(list(zip(images, ("dog", "cat", "dog"))))
    assert list(names.class_names) == ["cat", "dog"] and names.targets().tolist() == [1, 0, 1]
    hot = create_dataset(list(zip(images, ([1, 0], [1, 1], [0, 0]))))
    assert hot.multi_label and hot.num_classes == 2 and hot[1].target.tolist() == [1, 1]
    numbers = create_dataset(list(zip(images, (0.5, 2.0, torch.tensor(1.0)))))
    assert not numbers.class_names and [numbers[i].target for i in range(3)] == [0.5, 2.0, 1.0]
    for wrong, message in (
        ([], "no .image, label. pairs"),
        ([noise(0)], "no .image, label. pair"),
        (7, "int is no source"),
    ):
        with pytest.raises((UsageError, DataError), match=message):
            create_dataset(wrong)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("cat", 3, "dog"), "of different kinds"),
        ((None, None, None), "of different kinds"),
        (([0, 1], [1], [0]), "of different kinds"),
        ((0.5, float("nan"), 1.0), "the label of item 1 is no finite number"),
        ((0, -1, 2), "label -1 is no class number"),
        ((0, 1, 10_000_000), "class numbers go up to 10000000 and only 3 occur"),
    ],
)
def test_labels_of_pairs_that_mean_nothing_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        create_dataset([(noise(i), label) for i, label in enumerate(labels)])


def test_labels_of_pairs_are_what_they_look_like():
    def source(*labels):
        return create_dataset([(noise(i), label) for i, label in enumerate(labels)])

    truths = source(True, False, True)
    assert list(truths.class_names) == ["0", "1"] and not truths.numeric
    assert [truths[i].target for i in range(3)] == truths.targets().tolist() == [1, 0, 1]
    numbers = source([0.5, 7.5], [1, 0], [2, 3])
    assert numbers.numeric and not numbers.multi_label and numbers.num_classes == 2
    assert numbers[0].target.tolist() == [0.5, 7.5]
    assert source([0.5], [1.0], [2.0]).targets().shape == (3,)
    assert not source(-1, -1, -1).class_names


def test_a_label_without_a_class_is_refused():
    class Two(Pairs):
        classes = ("red", "green")

    with pytest.raises(DataError, match="label 2 is none of the 2 classes"):
        create_dataset(Two())


def test_an_iterable_data_set_is_a_stream():
    loader = create_loader(Stream(), create_transform(input_size=(3, 8, 8)), 4)
    assert torch.cat([batch.targets for batch in loader]).tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(UsageError, match="no stream"):
        create_loader(Stream(), TRAIN, 4, num_samples=6, sampler="balanced")


def test_targets_are_changed_by_a_function():
    source = create_dataset("digits:", target_transform=lambda digit: digit % 2)
    assert set(source.targets().tolist()) == {0, 1} and source[4].target == source.targets()[4]
    batch = next(iter(create_loader(source, create_transform(input_size=(1, 8, 8)), 50)))
    assert set(batch.targets.tolist()) == {0, 1}


def test_a_collate_function_mixes():
    mixer = Mixer(3, mixup_alpha=1.0, smoothing=0.1)
    pairs = [(create_transform(input_size=(3, 8, 8))(image), label) for image, label in PAIRS]
    torch.manual_seed(0)
    images, targets = next(iter(DataLoader(pairs, 6, collate_fn=mixer.collate)))
    assert images.shape == (6, 3, 8, 8) and targets.shape == (6, 3) and torch.allclose(targets.sum(1), torch.ones(6))
    assert ((targets > 0.05).sum(1) >= 1).all() and not torch.equal(images[0], pairs[0][0])
    stacked, labels = torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])
    kept = stacked.clone()
    first, second = mixer(stacked, labels), mixer(stacked, labels)
    assert not torch.equal(first[0], second[0]) and torch.equal(stacked, kept)
    torch.manual_seed(7)
    third = mixer(stacked, labels)
    torch.manual_seed(7)
    assert torch.equal(third[1], mixer(stacked, labels)[1])


def test_the_info_of_a_data_set_of_ones_own():
    info = DatasetInfo(["cat", "dog"], {"cat": "a cat", "dog": ("a dog", "Canis familiaris")}, name="pets")
    assert info.num_classes == 2 and info.index_to_label_name(1) == "dog"
    assert info.label_descriptions() == ["a cat", "a dog"]
    assert info.label_descriptions(detailed=True) == ["a cat", "a dog: Canis familiaris"]
    assert DatasetInfo({1: "b", 0: "a"}).label_names == ["a", "b"]
    with pytest.raises(UsageError, match=r"outside 0\.\.1 of pets"):
        info.index_to_label_name(2)
    with pytest.raises(UsageError, match="each once"):
        DatasetInfo({0: "a", 2: "b"})
    with pytest.raises(UsageError, match="no class 'emu'"):
        DatasetInfo(["cat"], {"emu": "x"})
    assert isinstance(ImageNetInfo(), DatasetInfo) and ImageNetInfo().index_to_description(0) == "tench, Tinca tinca"


def test_open_tars_say_nothing_when_python_ends(tmp_path):
    (tmp_path / "d.tar").write_bytes(tar_bytes({"a/0.jpg": noise(0), "b/0.jpg": noise(1)}))
    code = f"from imgzoo_data import create_dataset; s = create_dataset('tar:{tmp_path / 'd.tar'}'); s[0]; s.loop = s"
    done = subprocess.run([sys.executable, "-Xdev", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("change", "dtype", "first"),
    [
        (lambda digit: digit / 2 if digit % 2 else digit, torch.float32, None),
        (lambda digit: [0.25, digit / 10], torch.float32, 0.25),
        (lambda digit: torch.tensor([0.25, 0.5]), torch.float32, 0.25),
        (lambda digit: np.float32(digit) + np.float32(0.25), torch.float32, None),
        (lambda digit: torch.tensor(digit), torch.int64, None),
        (lambda digit: digit > 4, torch.int64, None),
    ],
)
def test_changed_targets_keep_their_fractions(change, dtype, first):
    """Numbers behind the point were cut off unless the first of a batch was a float of Python's."""
    source = create_dataset("digits:", target_transform=change)
    batch = next(iter(create_loader(source, create_transform(input_size=(1, 8, 8)), 32, training=False)))
    wanted = torch.tensor(np.array([np.asarray(source[i].target, np.float64) for i in range(32)]))
    assert batch.targets.dtype == dtype and torch.allclose(batch.targets.double(), wanted)
    assert first is None or batch.targets[0, 0] == first


@pytest.mark.parametrize("target", [None, "seven", {"digit": 7}])
def test_a_changed_target_that_is_no_number_is_told(target):
    source = create_dataset("digits:", target_transform=lambda digit: target)
    with pytest.raises(DataError, match="a target is a number"):
        next(iter(create_loader(source, create_transform(input_size=(1, 8, 8)), 4, training=False)))


@pytest.mark.parametrize("sampler", [None, iter([1]), 3])
def test_what_is_no_sampler_is_told(uneven, sampler):
    with pytest.raises(UsageError, match="a sampler is shuffle, balanced, sqrt"):
        create_loader(uneven, TRAIN, 4, sampler=sampler)


def test_the_number_that_a_source_lacks_is_told(uneven):
    with pytest.raises(UsageError, match="gave sample -1 of a source of 84"):
        drawn(uneven, sampler=[1, -1, 5])


@pytest.mark.parametrize(
    ("sizes", "batch_sizes"),
    [([8.5], 4), (["a"], 4), ([(8, 16, 3)], 4), ([8], 2.5), ([8], "x"), (8, 4), (None, 4), ([True], 4)],
)
def test_what_is_no_size_of_a_schedule_is_told(sizes, batch_sizes):
    with pytest.raises(UsageError, match="a size schedule: "):
        SizeSchedule.images(sizes, batch_sizes)
    with pytest.raises(UsageError, match=r"SizeSchedule\.images"):
        SizeSchedule([8, 16])


def test_a_mixer_of_fewer_classes_is_refused(uneven):
    with pytest.raises(UsageError, match="has 2 classes, and the source 3"):
        create_loader(uneven, TRAIN, 4, mixer=Mixer(2, mixup_alpha=1.0))
