"""The loop: accumulation, rows, the guard, and no waiting for the device."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from train_toys import Batch, batches, cross_entropy, equal_states, make_data, make_state

from imgzoo_train.files.packing import snapshot
from imgzoo_train.loop.fit import fit, grouped, split
from imgzoo_train.loop.nonfinite import Guard, NonFiniteError, Rollback


def gradients(size: int, accumulate: int, count: int) -> dict[str, torch.Tensor]:
    """Gradients of the first update over `count` samples."""
    state = make_state(norm=False, drop=0.0)
    images, targets = make_data(count)
    seen = {}

    def keep(params):
        seen.update({name: p.grad.clone() for name, p in state.plain.named_parameters()})
        return torch.zeros(())

    fit(state, batches(images, targets, size), cross_entropy, None, 1, accumulate=accumulate, clip=keep)
    return seen


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 5), accumulate=st.integers(1, 6), missing=st.integers(0, 4))
def test_accumulated_batches_equal_the_big_batch_ragged_or_not(size, accumulate, missing):
    count = max(1, size * accumulate - min(missing, size - 1))
    small, big = gradients(size, accumulate, count), gradients(count, 1, count)
    for name in big:
        torch.testing.assert_close(small[name], big[name], rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 40), size=st.integers(1, 9))
def test_the_remainder_is_one_update(n, size):
    groups = list(grouped(range(n), size))
    assert len(groups) == math.ceil(n / size)
    assert [item for group in groups for item in group] == list(range(n))


def test_rows_run_at_multiples_and_in_order():
    state = make_state()
    calls = []
    rows = [(2, lambda s: calls.append(("a", s.step))), (3, lambda s: calls.append(("b", s.step)))]
    fit(state, batches(*make_data(48), 8), cross_entropy, None, 6, rows=rows)
    assert calls == [("a", 2), ("b", 3), ("a", 4), ("a", 6), ("b", 6)]


def test_an_interrupted_row_runs_again_and_the_ones_before_it_do_not():
    state = make_state()
    calls = []

    def fails_once(s):
        calls.append("b")
        if len(calls) == 2:
            raise KeyboardInterrupt

    rows = [(1, lambda s: calls.append("a")), (1, fails_once), (1, lambda s: calls.append("c"))]
    data = batches(*make_data(16), 8)
    with pytest.raises(KeyboardInterrupt):
        fit(state, data, cross_entropy, None, 1, rows=rows)
    assert state.rows_done == 1
    fit(state, [], cross_entropy, None, 1, rows=rows)
    assert calls == ["a", "b", "b", "c"]
    assert state.rows_done is None


def test_stop_ends_the_loop():
    state = make_state()
    fit(state, batches(*make_data(48), 8), cross_entropy, None, 6, rows=[(2, lambda s: setattr(s, "stop", True))])
    assert state.step == 2


class CountSyncs(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_host_waits_only_when_a_row_asks():
    state = make_state()
    guard = Guard("raise", lagging=True)
    data = batches(*make_data(64), 8)
    with CountSyncs() as counter:
        fit(state, data[:1], cross_entropy, None, 1, guard=guard)
        first = counter.count
        fit(state, data, cross_entropy, None, 9, guard=guard)
    assert first == 0
    assert counter.count == 8  # one flag of the step before, read after the next was queued
    with CountSyncs() as counter:
        state.meters.take()
    assert counter.count == 2


def poison(where: str, data: list[Batch], at: int) -> tuple[list[Batch], object]:
    """Batches and a loss function of which update `at` is not finite."""
    if where == "input":
        data = list(data)
        data[at] = data[at]._replace(images=data[at].images * float("nan"))
        return data, cross_entropy
    calls = {"n": 0}

    def bad_loss(model, batch):
        loss = cross_entropy(model, batch)
        if batch.indices[0] == data[at].indices[0]:
            calls["n"] += 1
            return loss * float("inf") if where == "loss" else loss + 0 * (model.head.weight * 0).sqrt().sum()
        return loss

    return data, bad_loss


@pytest.mark.parametrize("where", ["input", "loss", "gradient"])
@pytest.mark.parametrize("policy", ["raise", "skip", "rollback"])
@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_bad_step_leaves_weights_buffers_optimizer_and_averages_as_they_were(where, policy, opt):
    from imgzoo_train.techniques.averages import Average

    state = make_state(opt=opt)
    state.averages["ema"] = Average(state.plain, 0.9)
    data, loss_fn = poison(where, batches(*make_data(48), 8), 3)
    records, before = [], {}

    def remember(s):
        if s.step == 3:
            before.update(snapshot(s.parts()))

    guard = Guard(policy, record=records.append)
    stop = {"raise": NonFiniteError, "rollback": Rollback}.get(policy)
    if stop:
        with pytest.raises(stop):
            fit(state, data, loss_fn, None, 4, rows=[(1, remember)], guard=guard)
    else:
        fit(state, data, loss_fn, None, 4, rows=[(1, remember)], guard=guard)
    after = snapshot(state.parts())
    for part in ("model", "optimizer", "average-ema"):
        assert equal_states(before[part], after[part]), part
    assert state.bad_steps == 1
    assert records[0]["step"] == 3
    assert records[0]["indices"] == data[3].indices.tolist()
    expected = {"input": "an input image", "loss": "the loss", "gradient": "gradient of head.weight"}
    assert records[0]["cause"] == expected[where]


def test_skipping_equals_a_run_that_never_saw_the_batch():
    data, loss_fn = poison("loss", batches(*make_data(48), 8), 3)
    skipped = make_state()
    fit(skipped, data, loss_fn, None, 6, guard=Guard("skip"))
    clean = make_state()
    clean.skipped = [3]
    fit(clean, data, cross_entropy, None, 6)
    assert equal_states(skipped.parts()["model"], clean.parts()["model"])


def test_too_many_bad_steps_end_the_run():
    data, _ = poison("input", batches(*make_data(48), 8), 1)
    data = [data[1]] * 6
    state = make_state()
    with pytest.raises(NonFiniteError, match="bad step number 3"):
        fit(state, data, cross_entropy, None, 6, guard=Guard("skip", limit=2))


def test_the_first_module_that_breaks_is_named():
    state = make_state()
    state.plain.norm.register_forward_hook(lambda m, i, o: o * float("nan"))
    with pytest.raises(NonFiniteError, match="output of norm"):
        fit(state, batches(*make_data(8), 8), cross_entropy, None, 1)


@pytest.mark.parametrize("short", [
    torch.OutOfMemoryError("no memory"), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
], ids=["accelerator", "python", "processor"])  # fmt: skip
def test_out_of_memory_halves_the_batch_until_it_fits_and_changes_nothing(short):
    def hungry(model, batch):
        if len(batch.targets) > 3:
            raise short
        return cross_entropy(model, batch)

    data = batches(*make_data(40), 8)
    small, whole = make_state(norm=False, drop=0.0), make_state(norm=False, drop=0.0)
    fit(small, data, hungry, None, 5)
    fit(whole, data, cross_entropy, None, 5)
    assert small.micro == 4
    for name, tensor in whole.plain.state_dict().items():
        torch.testing.assert_close(small.plain.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_a_batch_splits_into_its_rows():
    images, targets = make_data(7)
    parts = split(Batch(images, targets), 3)
    assert [len(part.targets) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.images for part in parts]), images)


def test_dropout_depends_on_the_step_alone():
    data = batches(*make_data(32), 8)
    one, two = make_state(), make_state()
    fit(one, data, cross_entropy, None, 4)
    fit(two, data[:2], cross_entropy, None, 2)
    torch.rand(17)  # someone else draws numbers in between
    fit(two, data[2:], cross_entropy, None, 4)
    assert equal_states(one.parts()["model"], two.parts()["model"])
