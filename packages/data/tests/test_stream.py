"""The stream is a pure function of (seed, epoch, step): workers, ranks, seeks and deaths change nothing."""

import hashlib
import itertools
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imgzoo.errors import UsageError
from imgzoo_data import Mixer, SizeSchedule, create_dataset, create_loader, create_transform
from imgzoo_data.order import Choice, Order

DIGITS = create_dataset("digits:")
ROW = create_transform(input_size=(1, 16, 16), training=True, erase=0.5, erase_mode="pixel")


def loaders(workers=0, world=1, batch=24, **options):
    options = {"seed": 5, "training": True, "mixer": Mixer(10, 0.4, 1.0, mode="pair"), **options}
    transform = options.pop("transform", ROW)
    return [
        create_loader(DIGITS, transform, batch // world, workers=workers, rank=rank, world=world, **options)
        for rank in range(world)
    ]


def hashes(ranks, steps=None):
    """Hash of (images, targets, indices) of each global step."""
    found = []
    for parts in itertools.islice(zip(*ranks), steps):
        digest = hashlib.sha256()
        for field in range(3):
            digest.update(torch.cat([part[field] for part in parts]).numpy().tobytes())
        found.append(digest.hexdigest())
    for loader in ranks:
        loader.close()
    return found


@pytest.fixture(scope="module")
def expected():
    return hashes(loaders())


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_nothing(expected, workers):
    assert hashes(loaders(workers)) == expected


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_of_the_main_process_change_nothing(expected, threads):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        assert hashes(loaders()) == expected
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("workers", [0, 1])
def test_world_changes_nothing(expected, workers):
    assert hashes(loaders(workers, world=2)) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_seek_gives_the_rest_of_the_epoch(expected, workers):
    assert hashes(loaders(workers, start_step=17)) == expected[17:]


@pytest.mark.slow
def test_spawned_workers_change_nothing(expected):
    assert hashes(loaders(1, context="spawn"), steps=5) == expected[:5]


def test_a_killed_worker_is_replaced_and_the_stream_goes_on(expected):
    (loader,) = loaders(2)
    found = []
    for step, batch in enumerate(loader):
        digest = hashlib.sha256()
        for field in batch:
            digest.update(field.numpy().tobytes())
        found.append(digest.hexdigest())
        if step == 9:
            os.kill(loader._engine._iterator._workers[1].pid, signal.SIGKILL)
    loader.close()
    assert found == expected


@pytest.mark.parametrize("count", [1, 2])
def test_workers_killed_between_two_epochs_are_replaced(expected, count):
    (loader,) = loaders(2)
    assert len(list(itertools.islice(loader, 3))) == 3
    for worker in loader._engine._iterator._workers[:count]:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    loader.seek(0)
    assert hashes([loader]) == expected


def test_epochs_follow_one_another_and_differ(expected):
    (loader,) = loaders()
    first, second = ([tuple(batch.indices.tolist()) for batch in loader] for _ in range(2))
    assert loader.epoch == 2
    assert first != second
    loader.seek(0)
    assert [tuple(batch.indices.tolist()) for batch in loader] == first


def test_the_global_generators_are_left_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    hashes(loaders(2), steps=3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()


def test_only_one_loop_at_a_time():
    (loader,) = loaders()
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(UsageError, match="one at a time"):
        next(first)


def test_kept_batches_are_never_overwritten():
    (loader,) = loaders(2, mixer=None)
    kept = list(itertools.islice(loader, 12))
    copies = [batch.images.clone() for batch in kept]
    assert len({batch.images.data_ptr() for batch in kept}) == 12
    loader.close()
    again = list(itertools.islice(loader, 12))
    assert all(torch.equal(a.images, b) and torch.equal(a.images, c.images) for a, b, c in zip(kept, copies, again))
    loader.close()


def test_memory_of_dropped_batches_is_used_again():
    (loader,) = loaders(mixer=None)
    places = {batch.images.data_ptr() for batch in loader}
    assert len(places) <= 3


orders = st.builds(
    dict,
    length=st.integers(1, 200),
    batch_size=st.integers(1, 17),
    seed=st.integers(0, 5),
    training=st.booleans(),
    drop_last=st.sampled_from([None, False]),
    repeats=st.integers(1, 4),
)


@settings(deadline=None, max_examples=150)
@given(orders, st.integers(1, 5), st.integers(0, 3))
def test_ranks_make_equal_numbers_of_steps_in_training_and_never_an_empty_batch(options, world, epoch):
    ranks = [Order(rank=rank, world=world, **options) for rank in range(world)]
    counts = [order.steps(epoch) for order in ranks]
    batches = [[order.batch(epoch, step) for step in range(count)] for order, count in zip(ranks, counts)]
    assert all(len(key.indices) for keys in batches for key in keys)
    seen = np.concatenate([key.indices for keys in batches for key in keys] or [np.zeros(0, int)])
    assert ((seen >= 0) & (seen < options["length"])).all()
    if options["training"]:
        assert len(set(counts)) == 1
    else:
        assert sorted(seen) == list(range(options["length"]))


@settings(deadline=None, max_examples=60)
@given(st.integers(8, 200), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_the_global_batch_does_not_depend_on_the_world(length, share, repeats, epoch):
    whole = Order(length, 4 * share, repeats=repeats)
    for step in range(whole.steps(epoch)):
        parts = [Order(length, 2 * share, rank=r, world=2, repeats=repeats).batch(epoch, step) for r in range(2)]
        assert whole.batch(epoch, step).indices.tolist() == [i for part in parts for i in part.indices.tolist()]
        assert whole.batch(epoch, step).views.tolist() == [v for part in parts for v in part.views.tolist()]


def test_training_without_drop_last_sees_every_sample():
    order = Order(103, 10, world=2, drop_last=False)
    other = Order(103, 10, rank=1, world=2, drop_last=False)
    seen = [i for o in (order, other) for step in range(o.steps(0)) for i in o.batch(0, step).indices.tolist()]
    assert sorted(seen) == list(range(103))


def test_repeated_augmentation_gives_each_sample_its_views():
    key = Order(90, 12, repeats=3).batch(0, 0)
    assert len(set(key.indices.tolist())) == 4
    assert len(set(zip(key.indices.tolist(), key.views.tolist()))) == 12
    assert all(a != b for a, b in zip(key.indices[0::2], key.indices[1::2])), "a sample must not be mixed with itself"
    ranks = [Order(90, 4, repeats=3, rank=r, world=3).batch(0, 0) for r in range(3)]
    assert all(set(ranks[0].indices.tolist()) == set(rank.indices.tolist()) for rank in ranks), "one view a rank"


def test_repeated_views_look_different():
    (loader,) = loaders(batch=12, repeats=3, mixer=None)
    batch = next(iter(loader))
    same = batch.indices == batch.indices[0]
    assert same.sum() == 3
    views = batch.images[same]
    assert not torch.equal(views[0], views[1]) and not torch.equal(views[1], views[2])


def test_scheduled_sizes_change_from_step_to_step_and_cover_the_epoch():
    schedule = SizeSchedule.images([16, 24, 32], 12)
    assert [choice.batch_size for choice in schedule.choices] == [48, 21, 12]
    (loader,) = loaders(schedule=schedule, mixer=None)
    shapes = [tuple(batch.images.shape) for batch in loader]
    assert {shape[2] for shape in shapes} == {16, 24, 32}
    assert all(shape[0] == {16: 48, 24: 21, 32: 12}[shape[2]] for shape in shapes)
    assert len(DIGITS) - 48 < sum(shape[0] for shape in shapes) <= len(DIGITS)


def test_scheduled_sizes_are_equal_for_workers_worlds_and_seeks():
    schedule = SizeSchedule.images([16, 24], [8, 4])
    whole = SizeSchedule.images([16, 24], [16, 8])
    expected = hashes(loaders(schedule=whole))
    assert hashes(loaders(2, schedule=whole)) == expected
    assert hashes(loaders(1, world=2, schedule=schedule)) == expected
    assert hashes(loaders(schedule=whole, start_step=20)) == expected[20:]


@pytest.mark.parametrize("spread", [0.0, 1e-3, 0.5])
@pytest.mark.parametrize("weights", [None, (0.0, 1.0, 1.0)])
def test_progressive_sizes_have_probabilities_in_every_epoch(spread, weights):
    """Also where an epoch lies midway between two sizes, which are far apart for the width of the window."""
    for count in (2, 3, 4) if weights is None else (3,):
        for epochs in range(1, 12):
            options = {"schedule": "progressive", "epochs": epochs, "random_mix": 0, "spread": spread}
            schedule = SizeSchedule(tuple(Choice((8 * i, 8 * i), 4) for i in range(1, count + 1)), weights, **options)
            table = np.array([schedule.probabilities(epoch) for epoch in range(epochs + 1)])
            np.testing.assert_allclose(table.sum(1), 1)
            assert (np.diff(table @ np.arange(count)) > -1e-9).all()
            schedule.plan(20, 1, 0, epochs // 2, None)


def test_progressive_sizes_grow():
    schedule = SizeSchedule.images([16, 24, 32], 12, schedule="progressive", epochs=5, random_mix=0.0)
    means = [np.dot(schedule.probabilities(epoch), [16, 24, 32]) for epoch in range(5)]
    assert means == sorted(means) and means[0] < 19 and means[-1] > 29


def test_worker_errors_reach_the_caller_as_they_are():
    class Broken(type(DIGITS)):
        def __getitem__(self, index):
            raise ZeroDivisionError("a bug")

    loader = create_loader(Broken(), ROW, 4, workers=1)
    with pytest.raises(ZeroDivisionError):
        next(iter(loader))
    loader.close()
