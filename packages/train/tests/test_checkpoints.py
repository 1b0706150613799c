"""Checkpoints: what is complete verifies, what is damaged is passed over, a crash anywhere loses nothing."""

import errno
import json
import os
import resource
import shutil
import signal
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from train_toys import equal_states, make_state

from imgzoo_train.files import checkpoints, storage
from imgzoo_train.files.checkpoints import CheckpointError, Checkpoints, Retention, folder_name
from imgzoo_train.files.packing import pack, snapshot, unpack


def parts(step: int) -> dict:
    state = make_state(seed=step)
    state.step = step
    return state.parts()


def filled(root, steps=(1, 2, 3), **options) -> tuple[Checkpoints, list[str]]:
    said = []
    store = Checkpoints(root, Retention(last=9), background=False, warn=said.append, **options)
    for step in steps:
        store.save(step, parts(step))
    return store, said


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**40), 2**40)
    | st.floats()
    | st.text(max_size=4)
    | st.integers(0, 4).map(lambda n: torch.arange(n, dtype=torch.float32))
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_read_tensors_lie_as_aligned_as_new_ones(tmp_path):
    """Else Newton-Schulz of Muon rounds otherwise after a resume."""
    tensors = {f"t{n}": torch.randn(n, 3) for n in (1, 2, 3, 5, 7, 9)}
    storage.write_tensors(tmp_path / "t.safetensors", tensors)
    found = storage.read_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert any(tensor.data_ptr() % 64 for tensor in load_file(tmp_path / "t.safetensors").values())
    assert not any(tensor.data_ptr() % 64 for tensor in found.values())


@settings(max_examples=200, deadline=None)
@given(trees)
def test_a_packed_tree_unpacks_equal(tree):
    plain, tensors = pack({"root": tree})
    again = unpack(json.loads(json.dumps(plain)), tensors)["root"]
    assert repr(again) == repr(tree)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool, torch.uint8]
)
def test_tensor_files_are_safetensors(tmp_path, dtype):
    tensors = {"a.b": torch.arange(6).reshape(2, 3).t().to(dtype), "empty": torch.zeros(0, 3), "one": torch.tensor(2.0)}
    entry = storage.write_tensors(tmp_path / "x.safetensors", tensors)
    assert entry == storage.file_entry(tmp_path / "x.safetensors")
    read = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_checkpoint_restores_every_tensor_and_number(tmp_path):
    store, _ = filled(tmp_path)
    found = store.newest()
    assert found.folder.name == "00000003"
    assert sorted(p.name for p in found.folder.iterdir()) == [
        "manifest.json",
        "meters.safetensors",
        "model.safetensors",
        "state.json",
    ]
    found.parts.pop("format")
    assert equal_states(found.parts, parts(3))
    assert (tmp_path / "latest").read_text().strip() == "00000003"


def corruptions(folder):
    """(name, what it does to the newest checkpoint)."""
    model, state, manifest = folder / "model.safetensors", folder / "state.json", folder / "manifest.json"

    def flip(path, at):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    def swap(left, right):
        a, b = left.read_bytes(), right.read_bytes()
        left.write_bytes(b)
        right.write_bytes(a)

    yield "truncated model", lambda: model.write_bytes(model.read_bytes()[:-7])
    yield "truncated state", lambda: state.write_bytes(state.read_bytes()[:-1])
    yield "grown", lambda: model.write_bytes(model.read_bytes() + b"\0")
    yield "flipped first byte", lambda: flip(model, 0)
    yield "flipped last byte", lambda: flip(model, -1)
    yield "flipped state", lambda: flip(state, 10)
    yield "flipped manifest", lambda: flip(manifest, 40)
    yield "missing model", model.unlink
    yield "missing state", state.unlink
    yield "missing manifest", manifest.unlink
    yield "empty model", lambda: model.write_bytes(b"")
    yield "empty manifest", lambda: manifest.write_bytes(b"")
    yield "manifest of another kind", lambda: manifest.write_text("[]")
    yield "manifest of another step", lambda: shutil.copy(folder.parent / "00000001" / "manifest.json", manifest)
    yield "manifest of the future", lambda: manifest.write_text('{"format": 99, "files": {}}')
    yield "manifest without files", lambda: manifest.write_text('{"format": 1, "files": {}}')
    yield "swapped files", lambda: swap(model, state)
    yield "swapped tensors", lambda: swap(model, folder / "meters.safetensors")
    yield "a folder instead of a file", lambda: (model.unlink(), model.mkdir())
    yield "empty folder", lambda: [path.unlink() for path in folder.iterdir()]


def names() -> list[str]:
    from pathlib import Path

    return [name for name, _ in corruptions(Path("x"))]


@pytest.mark.parametrize("name", names())
def test_a_damaged_checkpoint_is_passed_over_and_it_is_said(tmp_path, name):
    store, said = filled(tmp_path)
    dict(corruptions(tmp_path / "00000003"))[name]()
    found = store.newest()
    assert found.folder.name == "00000002"
    assert "skipped a damaged checkpoint" in said[0]
    assert "00000003" in said[0]
    assert "00000002" in said[-1]


def test_without_a_good_checkpoint_there_is_an_error_and_without_any_there_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nothing").newest() is None
    store, _ = filled(tmp_path, steps=(1,))
    (tmp_path / "00000001" / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no checkpoint in .* is intact"):
        store.newest()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_to_any_file_is_noticed(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("fuzz")
    checkpoints.write(root / "00000001", {"model": {"w": torch.arange(9.0)}, "progress": {"step": 1}})
    path = root / "00000001" / data.draw(st.sampled_from(["model.safetensors", "state.json"]))
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        checkpoints.read(root / "00000001")
    shutil.rmtree(root)


CALLS = ["open", "write", "fsync", "close", "rename", "replace", "mkdir", "unlink", "rmdir"]


def crash_at(root, call: int, steps: tuple[int, ...]) -> bool:
    """Save `steps` in a child that dies at its `call`-th system call; whether it died."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(original):
            def run(*args, **kwargs):
                nonlocal count
                if count == call:
                    os._exit(9)
                count += 1
                return original(*args, **kwargs)

            return run

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            store = Checkpoints(root, Retention(last=1, best=0), background=False)
            for step in steps:
                store.save(step, {"model": {"w": torch.full((3,), float(step))}, "progress": {"step": step}})
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 9


def test_a_crash_between_any_two_system_calls_leaves_a_good_checkpoint(tmp_path):
    call = crashes = 0
    while True:
        root = tmp_path / str(call)
        Checkpoints(root, Retention(last=1), background=False).save(
            1, {"model": {"w": torch.ones(3)}, "progress": {"step": 1}}
        )
        died = crash_at(root, call, (2, 3, 3))
        found = Checkpoints(root, warn=lambda text: None).newest()
        step = found.parts["progress"]["step"]
        assert step in (1, 2, 3)
        assert torch.equal(found.parts["model"]["w"], torch.full((3,), float(step)))
        store = Checkpoints(root, Retention(last=1), background=False)
        store.save(4, {"model": {"w": torch.zeros(3)}, "progress": {"step": 4}})
        assert store.newest().parts["progress"]["step"] == 4
        if not died:
            break
        crashes += 1
        call += 1
    assert crashes > 60


def test_a_snapshot_is_saved_not_what_comes_later(tmp_path, monkeypatch):
    gate = threading.Event()
    original = checkpoints.write
    monkeypatch.setattr(checkpoints, "write", lambda *args: (gate.wait(10), original(*args)))
    store = Checkpoints(tmp_path)
    state = make_state()
    before = snapshot(state.parts())
    store.save(1, state.parts())
    with torch.no_grad():
        for parameter in state.plain.parameters():
            parameter.zero_()
    gate.set()
    found = store.newest()
    assert equal_states(found.parts["model"], before["model"])


def test_an_error_of_the_background_writer_surfaces(tmp_path, monkeypatch):
    def broken(*args):
        raise OSError(errno.EIO, "disk on fire")

    monkeypatch.setattr(checkpoints, "write", broken)
    store = Checkpoints(tmp_path)
    store.save(1, parts(1))
    with pytest.raises(OSError, match="disk on fire"):
        store.wait()
    store.wait()


def test_a_full_disk_is_a_warning_and_the_last_good_one_stays(tmp_path):
    store, said = filled(tmp_path, steps=(1,))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limit[1]))
        store.save(2, parts(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "no space left for checkpoint 2" in said[0]
    assert store.newest().folder.name == "00000001"
    assert not list(tmp_path.glob(".partial-*"))
    store.save(3, parts(3))
    assert store.newest().folder.name == "00000003"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 99), min_size=1, max_size=12, unique=True),
    st.dictionaries(st.integers(1, 99), st.floats(), max_size=12),
    st.integers(1, 4),
    st.integers(0, 4),
    st.sets(st.integers(1, 99), max_size=6),
)
def test_retention_keeps_the_last_the_best_and_milestones_and_nan_is_never_best(steps, scores, last, best, pinned):
    kept = Retention(last, best, pinned).keep(steps, scores)
    assert max(steps) in kept
    assert set(sorted(steps)[-last:]) <= kept
    assert pinned & set(steps) <= kept <= set(steps)
    extra = kept - set(sorted(steps)[-last:]) - pinned
    assert all(abs(scores[step]) != float("inf") and scores[step] == scores[step] for step in extra)
    assert len(extra) <= best


def test_old_checkpoints_go_and_the_best_stays(tmp_path):
    store = Checkpoints(tmp_path, Retention(last=2, best=1, pinned={4, 8}), background=False)
    for step, score in enumerate([5.0, 9.0, 7.0, 6.0, float("nan"), 3.0, 2.0], start=1):
        store.save(step, {"model": {"w": torch.ones(1)}}, score)
    assert store.steps() == [2, 4, 6, 7]
    assert folder_name(7) == (tmp_path / "latest").read_text().strip()


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path):
    filled(tmp_path, steps=(1,))
    for path in (tmp_path / "00000001").iterdir():
        assert path.suffix in (".json", ".safetensors")
        assert not path.read_bytes().startswith((b"\x80", b"PK"))
    assert "pickle" not in sys.modules["imgzoo_train.files.checkpoints"].__dict__
