"""Weights: every source, the license policy, adaptation, damage, and files that would run code."""

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from tiny_models import TinyNet, plugin

import imgzoo
from imgzoo.cli.weights import lock_command
from imgzoo.errors import ImgzooError, LicenseError, OfflineError, UnknownNameError, UsageError, WeightsError
from imgzoo.loading import load_checkpoint, locate, save_model
from imgzoo.loading.adapt import adapt_input
from imgzoo.loading.bundle import bundle, verify
from imgzoo.loading.files import read_state
from imgzoo.loading.policy import check_license

IMAGE = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "cache"))
    for name in ("IMGZOO_OFFLINE", "HF_HUB_OFFLINE", "IMGZOO_LICENSE_POLICY", "IMGZOO_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    imgzoo.reload()
    imgzoo.register(plugin(), "tinyplug")
    yield
    imgzoo.reload()


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = imgzoo.create_model("tiny").eval()
    model.norm.running_mean.uniform_(-1, 1)
    return model


@pytest.fixture
def saved(model, tmp_path):
    return save_model(model, tmp_path / "saved", class_names=[f"class {i}" for i in range(10)], license="MIT")


def test_saved_folder_comes_back_whole(model, saved):
    again = imgzoo.create_model(saved, pretrained=True).eval()
    assert torch.equal(again(IMAGE), model(IMAGE))
    assert torch.equal(again.table, model.table), "non-persistent buffers are made as always"
    assert again.class_names == [f"class {i}" for i in range(10)]
    assert again.pretrained_cfg["license"] == "MIT"
    assert sorted(p.name for p in saved.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("form", ["local-dir:{}", "{}", "{}/model.safetensors"])
def test_every_local_form(model, saved, form):
    again = imgzoo.create_model("tiny", pretrained=form.format(saved)).eval()
    assert torch.equal(again(IMAGE), model(IMAGE))


def test_training_writes_nothing_back_to_the_file(saved):
    before = (saved / "model.safetensors").read_bytes()
    model = imgzoo.create_model(saved, pretrained=True).train()
    model(IMAGE)  # moves running averages in place
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    assert (saved / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"state_dict": s, "epoch": 3},
    lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    lambda s: {"model": {k: torch.zeros_like(v) for k, v in s.items()}, "model_ema": s},
    lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
])  # fmt: skip
def test_training_checkpoints_are_unwrapped(model, tmp_path, wrap):
    torch.save(wrap(model.state_dict()), tmp_path / "w.pth")
    again = imgzoo.create_model("tiny", pretrained=tmp_path / "w.pth").eval()
    assert torch.equal(again(IMAGE), model(IMAGE))


def test_classes_and_channels_are_adapted(model, saved):
    other = imgzoo.create_model("tiny", pretrained=saved, num_classes=4, in_chans=1).eval()
    assert other(IMAGE[:, :1]).shape == (2, 4)
    assert other.load_report.initialized == ["fc.weight", "fc.bias"]
    assert torch.allclose(other.stem.weight, model.stem.weight.sum(1, keepdim=True))
    text = str(other.load_report)
    assert "3 input channels made 1" in text and "10 classes dropped" in text


def test_what_is_missing_is_initialized_as_the_family_does(saved):
    torch.manual_seed(5)
    model = imgzoo.create_model("tiny", pretrained=saved, num_classes=3)
    assert not model.fc.weight.is_meta and model.fc.weight.std() > 0.01
    torch.manual_seed(6)
    other = imgzoo.create_model("tiny", pretrained=saved, num_classes=3)
    assert not torch.equal(model.fc.weight, other.fc.weight)


@pytest.mark.parametrize("chans", [1, 2, 3, 4, 6, 7])
def test_input_kernels_keep_the_response_to_gray(chans):
    kernel = torch.randn(8, 3, 3, 3, dtype=torch.float64)
    adapted = adapt_input(kernel, chans)
    assert adapted.shape == (8, chans, 3, 3)
    if chans % 3 == 0:
        assert torch.allclose(adapted.sum(1), kernel.sum(1))


@pytest.mark.parametrize("chans", [1, 4, 6])
def test_kernels_over_patches_are_adapted_channel_by_channel_in_either_order(chans):
    kernel = torch.randn(8, 3, 4)  # channels, then cells
    apart = adapt_input(kernel.flatten(1), chans, 4, planes_apart=True)
    beside = adapt_input(kernel.transpose(1, 2).flatten(1), chans, 4)
    assert torch.equal(apart.unflatten(1, (chans, 4)), beside.unflatten(1, (4, chans)).transpose(1, 2))
    assert torch.allclose(apart.unflatten(1, (chans, 4)), adapt_input(kernel, chans))


def test_half_precision_files_become_float32(model, tmp_path):
    from safetensors.torch import save_file

    save_file({k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()},
              tmp_path / "h.safetensors")  # fmt: skip
    again = imgzoo.create_model("tiny", pretrained=tmp_path / "h.safetensors")
    assert all(p.dtype == torch.float32 for p in again.parameters())
    half = imgzoo.create_model("tiny", pretrained=tmp_path / "h.safetensors", dtype=torch.bfloat16)
    assert all(p.dtype == torch.bfloat16 for p in half.parameters())


def test_foreign_weights_are_named_in_one_sentence(tmp_path):
    torch.save({"completely": torch.ones(2), "different": torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"does not fit tiny: it lacks .* and has 2 it cannot place"):
        imgzoo.create_model("tiny", pretrained=tmp_path / "x.pth")


def test_wrong_shapes_are_named(model, tmp_path):
    state = model.state_dict()
    state["stages.0.weight"] = torch.zeros(1, 2, 3, 3)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"stages.0.weight is \(1, 2, 3, 3\), not"):
        imgzoo.create_model("tiny", pretrained=tmp_path / "x.pth")


def test_load_checkpoint_into_a_model(model, saved):
    other = imgzoo.create_model("tiny").eval()
    report = load_checkpoint(other, saved)
    assert torch.equal(other(IMAGE), model(IMAGE)) and not report.unused
    with pytest.raises(WeightsError):
        load_checkpoint(imgzoo.create_model("tiny", num_classes=3), saved)
    assert load_checkpoint(imgzoo.create_model("tiny", num_classes=3), saved, strict=False).initialized


# hostile and damaged files


class Payload:
    """Pickled, this writes a file when it is loaded."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".tar", ".safetensors", ".npz", ".ckpt"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_a_pickle_payload_is_refused_and_never_runs(tmp_path, suffix, writer):
    marker = tmp_path / "ran"
    path = tmp_path / f"evil{suffix}"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"state_dict": Payload(marker)}))
    else:
        torch.save({"state_dict": Payload(marker)}, path)
    with pytest.raises(WeightsError) as error:
        read_state(path)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
    assert not marker.exists()


def test_arrays_of_objects_are_refused(tmp_path):
    import numpy as np

    marker = tmp_path / "ran"
    np.savez(tmp_path / "evil.npz", w=np.array([Payload(marker)], dtype=object))
    with pytest.raises(WeightsError):
        read_state(tmp_path / "evil.npz")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12", r"begins with 'version https://git-lfs\.'$"),
        (b"<!DOCTYPE html>\n<html>", "begins with '<!DOCTYPE html>'$"),
        (b"", "is empty$"),
        (b"\x80\x02}q\0", "is damaged or holds more than tensors"),
    ],
)
def test_a_file_that_is_none_of_torchs_is_called_what_it_is(tmp_path, data, said):
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(WeightsError, match=said):
        read_state(tmp_path / "x.pth")


@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "huge header"])
def test_damaged_safetensors_are_named(saved, damage):
    path = saved / "model.safetensors"
    data = path.read_bytes()
    broken = {
        "truncated": data[: len(data) // 2],
        "empty": b"",
        "header": data[:8] + b"x" * 40 + data[48:],
        "huge header": struct.pack("<Q", 2**60) + data[8:],
    }[damage]
    path.write_bytes(broken)
    with pytest.raises(WeightsError, match=r"model\.safetensors"):
        imgzoo.create_model(saved, pretrained=True)


@pytest.mark.parametrize("config", [
    "{", "[1, 2]", '{"architecture": 3}', '{"architecture": "os.system"}', "{}",
    '{"architecture": "tiny", "model_args": {"__class__": 1}}', '{"architecture": "tiny", "num_classes": "many"}',
])  # fmt: skip
def test_hostile_configurations_end_in_one_sentence(saved, config):
    (saved / "config.json").write_text(config)
    with pytest.raises(ImgzooError):
        imgzoo.create_model(saved, pretrained=True)


# names, policy, offline


def test_tags_paths_and_schemes_that_do_not_exist(tmp_path):
    with pytest.raises(UnknownNameError, match="its tags are a_in10, b_in10"):
        imgzoo.create_model("tiny", pretrained="c_in10")
    with pytest.raises(UnknownNameError):
        imgzoo.create_model("tiny.c_in10")
    for missing in (tmp_path / "no.safetensors", f"local-dir:{tmp_path}/no"):
        with pytest.raises(WeightsError):
            imgzoo.create_model("tiny", pretrained=missing)
    with pytest.raises(WeightsError, match="pip install no-such-dist"):
        imgzoo.create_model("tiny", pretrained="package:no-such-dist")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="no weight file"):
        load_checkpoint(TinyNet(), tmp_path / "empty")


@pytest.mark.parametrize("policy, license, allowed", [
    ("any", "", True), ("permissive", "Apache-2.0", True), ("permissive", "apache-2.0", True),
    ("permissive", "CC-BY-NC-4.0", False), ("permissive", "", False), ("permissive", "LicenseRef-custom", False),
    ("MIT,Apache-2.0", "MIT", True), ("MIT", "Apache-2.0", False),
])  # fmt: skip
def test_license_policy(monkeypatch, policy, license, allowed):
    monkeypatch.setenv("IMGZOO_LICENSE_POLICY", policy)
    if allowed:
        check_license(license, "weights")
    else:
        with pytest.raises(LicenseError):
            check_license(license, "weights")


def test_a_forbidden_license_stops_before_a_byte_is_read(monkeypatch):
    monkeypatch.setenv("IMGZOO_LICENSE_POLICY", "permissive")
    monkeypatch.setattr("imgzoo.loading.load.fetch_weights", lambda source: pytest.fail("touched the file"))
    with pytest.raises(LicenseError, match=r"CC-BY-NC-4\.0"):
        imgzoo.create_model("tiny.b_in10", pretrained=True)


def test_offline_opens_no_socket(monkeypatch):
    monkeypatch.setenv("IMGZOO_OFFLINE", "1")
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("opened a socket"))
    with pytest.raises(OfflineError):
        imgzoo.create_model("tiny.a_in10", pretrained=True)


def test_bundle_holds_verified_copies(monkeypatch, saved, tmp_path):
    monkeypatch.setattr("imgzoo.loading.bundle.fetch_weights", lambda source: saved / "model.safetensors")
    index = bundle(["tiny.a_in10"], tmp_path / "bundle")
    assert index["weights"]["tinyplug/tiny.a_in10"]["license"] == "Apache-2.0"
    assert not verify(tmp_path / "bundle")
    monkeypatch.setenv("IMGZOO_BUNDLE", str(tmp_path / "bundle"))
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("opened a socket"))
    imgzoo.create_model("tiny", pretrained=True)
    file = tmp_path / "bundle" / "tinyplug--tiny.a_in10.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        imgzoo.create_model("tiny", pretrained=True)
    assert len(verify(tmp_path / "bundle")) == 1


def test_a_lock_is_not_written_over_weights(saved, monkeypatch):
    monkeypatch.setattr("imgzoo.loading.bundle.lock", lambda names: {"weights": {}})
    weights = saved / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(UsageError, match=r"a \.json file"):
        lock_command.main(["test_resnet", "-o", str(weights)], standalone_mode=False)
    assert weights.read_bytes() == before
    lock_command.main(["test_resnet", "-o", str(saved / "weights.lock.json")], standalone_mode=False)
    assert json.loads((saved / "weights.lock.json").read_text()) == {"weights": {}}


def test_a_bundle_cannot_point_out_of_its_folder(tmp_path):
    rows = {"tiny.a_in10": {"file": "../secret.safetensors", "sha256": "0" * 64}}
    (tmp_path / "bundle.json").write_text(json.dumps({"weights": rows}))
    with pytest.raises(WeightsError, match="malformed"):
        verify(tmp_path)


@pytest.mark.parametrize("version", [None, 1, 99, "2"])
def test_a_bundle_of_another_layout_is_refused(tmp_path, version):
    (tmp_path / "bundle.json").write_text(json.dumps({"version": version, "weights": {}}))
    with pytest.raises(WeightsError, match="make it again"):
        verify(tmp_path)


def test_each_owner_of_a_name_has_a_row_and_a_file(monkeypatch, model, tmp_path):
    imgzoo.register(plugin(), "otherplug")
    files = {}
    for number, owner in enumerate(("tinyplug", "otherplug")):
        with torch.no_grad():
            model.norm.bias.fill_(number)
        files[owner] = save_model(model, tmp_path / owner) / "model.safetensors"
    monkeypatch.setattr("imgzoo.loading.bundle.fetch_weights", lambda source: files[source.spec.plugin])
    names = [f"{owner}/tiny.a_in10" for owner in files]
    index = bundle(names, tmp_path / "bundle")
    assert [*index["weights"]] == names and len({row["file"] for row in index["weights"].values()}) == 2
    monkeypatch.setenv("IMGZOO_BUNDLE", str(tmp_path / "bundle"))
    for number, name in enumerate(names):
        assert imgzoo.create_model(name, pretrained=True).norm.bias.mean() == number


@pytest.mark.parametrize("name", ["tiny", "tiny.a_in10", "tinyplug/tiny"])
def test_a_folder_never_takes_the_place_of_a_name(model, tmp_path, monkeypatch, name):
    with torch.no_grad():
        model.norm.bias.fill_(7)
    save_model(model, tmp_path / name)
    save_model(model, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert locate(name).weights_from == "" and imgzoo.create_model(name).norm.bias.mean() != 7
    for path in (f"./{name}", f"local-dir:{name}", str(tmp_path / name), "mine"):
        assert imgzoo.create_model(path, pretrained=True).norm.bias.mean() == 7


def test_changes_after_creation_are_saved(model, tmp_path):
    model.reset_classifier(4, "max")
    save_model(model, tmp_path / "changed")
    again = imgzoo.create_model(tmp_path / "changed", pretrained=True).eval()
    assert again.pool_kind() == "max" and torch.equal(again(IMAGE), model.eval()(IMAGE))


def test_locate_resolves_without_building():
    source = locate("tiny.b_in10", True)
    assert (source.spec.name, source.weights.tag, source.license) == ("tiny", "b_in10", "CC-BY-NC-4.0")


def test_a_model_on_the_meta_device_is_loaded(tmp_path):
    model = imgzoo.create_model("tiny").eval()
    imgzoo.save_model(model, tmp_path)
    away = imgzoo.create_model("tiny", device="meta").eval()
    imgzoo.load_checkpoint(away, tmp_path)
    assert torch.equal(away(IMAGE), model(IMAGE)), "with the table that no file holds"
    away = imgzoo.create_model("tiny", device="meta")
    (tmp_path / "model.safetensors").unlink()
    state = {key: value for key, value in model.state_dict().items() if key != "fc.bias"}
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"fc\.bias"):
        imgzoo.load_checkpoint(away, tmp_path / "part.pth", strict=False)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "npz"])
def test_what_becomes_of_a_file_happens_to_no_model(model, tmp_path, kind):
    import numpy as np
    from safetensors.torch import save_file

    path, state = tmp_path / f"w.{kind}", model.state_dict()
    if kind == "npz":
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    else:
        (save_file if kind == "safetensors" else torch.save)(state, path)
    again = imgzoo.create_model("tiny", pretrained=str(path)).eval()
    size = path.stat().st_size
    with path.open("r+b") as file:  # in place, as cp and rsync --inplace write
        file.write(b"\x3f" * size)
    assert torch.equal(again(IMAGE), model(IMAGE))
    path.write_bytes(b"")  # a mapping would now end the process
    assert torch.equal(again(IMAGE), model(IMAGE))


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_that_share_memory_in_a_file_are_apart(tmp_path, mapped):
    whole = torch.arange(12.0)
    shared = {"a": whole, "b": whole, "c": whole[:4], "d": whole[4:8], "e": whole[:1].expand(6), "f": torch.ones(3)}
    shared |= {"g": whole.view(3, 4).t(), "h": torch.zeros(0)}
    torch.save(shared, tmp_path / "w.pth")
    state = read_state(tmp_path / "w.pth", mapped=mapped)
    for key, value in shared.items():
        assert torch.equal(state[key], value)
    for key in state:
        before = {other: value.clone() for other, value in state.items() if other != key}
        state[key].add_(1)
        assert all(torch.equal(state[other], value) for other, value in before.items()), key
    assert all(value.untyped_storage().nbytes() == value.numel() * value.itemsize for value in state.values())


def test_only_files_that_nobody_writes_into_are_mapped(monkeypatch, tmp_path):
    from imgzoo.loading.places import may_map
    from imgzoo.native import cache_dir

    mine, cached = tmp_path / "w.safetensors", cache_dir() / "downloads" / "x" / "w.safetensors"
    assert not may_map(mine, str(mine)) and not may_map(mine, f"local-dir:{tmp_path}") and not may_map(cached, "")
    assert may_map(mine, "package:dist") and may_map(mine, "hf-hub:org/repo") and may_map(mine, "tag")
    assert may_map(cached, "https://there/w.safetensors") and not may_map(mine, "s3://there/w.safetensors")
    monkeypatch.setenv("IMGZOO_BUNDLE", str(tmp_path))
    assert not may_map(mine, "tag")
    for word, answer in (("0", False), ("1", True)):
        monkeypatch.setenv("IMGZOO_MAP_WEIGHTS", word)
        assert may_map(mine, "") is may_map(mine, "package:dist") is answer


def test_a_mapped_file_gives_the_same_model(model, saved, monkeypatch):
    monkeypatch.setenv("IMGZOO_MAP_WEIGHTS", "1")
    assert torch.equal(imgzoo.create_model(saved, pretrained=True).eval()(IMAGE), model(IMAGE))


def test_a_file_that_ends_while_it_is_read_is_damaged(tmp_path):
    from imgzoo.loading.files import _exactly

    (tmp_path / "short").write_bytes(b"123")
    with (tmp_path / "short").open("rb", buffering=0) as file, pytest.raises(ValueError, match="it ends early"):
        _exactly(file, bytearray(4))


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_saved_files_have_the_mode_of_the_umask(model, tmp_path, mask):
    before = os.umask(mask)
    try:
        folder = save_model(model, tmp_path / "saved")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "config.json": 0o666 & ~mask, "model.safetensors": 0o666 & ~mask
    }  # fmt: skip


def test_what_stands_beside_a_file_is_never_written(model, tmp_path, monkeypatch):
    from imgzoo.loading import disk

    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(disk.secrets, "token_hex", lambda count: "guessed")
    for name in ("model.safetensors", "config.json"):
        (tmp_path / f".{name}.guessed.part").symlink_to(victim)
    with pytest.raises(FileExistsError):
        save_model(model, tmp_path)
    assert victim.read_text() == "mine"


ODD = {
    "sparse": lambda value: value.to_sparse(),
    "meta": lambda value: value.to("meta"),
    "no dimensions": lambda value: torch.tensor(1.0),
    "quantized": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "nested": lambda value: torch.nested.nested_tensor([value[0]]),
    "more dimensions": lambda value: value[..., None, None, None],
    "complex": lambda value: value.to(torch.complex64),
    "endless": lambda value: value.new_zeros(1).expand(1 << 40),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("head", [False, True])
def test_tensors_that_are_no_weights_are_one_sentence(model, tmp_path, kind, head):
    state = model.state_dict()
    key = next(name for name in state if name.endswith("weight") and name.startswith(model._heads()[0]) == head)
    value = state[key]
    torch.save({**state, key: ODD[kind](value)}, tmp_path / "w.pth")
    try:
        made = imgzoo.create_model("tiny", pretrained=str(tmp_path / "w.pth"))
    except WeightsError as error:
        assert "\n" not in str(error)
    else:  # a classifier of another shape is begun anew, and the report says so
        assert key in made.load_report.initialized and "dimensions" in kind


def test_a_file_that_would_run_code_names_it(tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    content, path = {"state_dict": {"a": torch.ones(1)}, "x": Runs()}, tmp_path / "w.pth"
    writers = [lambda: torch.save(content, path), lambda: torch.save(content, path, pickle_protocol=4)]
    writers += [lambda n=n: path.write_bytes(pickle.dumps(content["x"], n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)]
    for write in writers:
        write()
        with pytest.raises(WeightsError, match=r"names 'posix.mkdir', so it was not loaded: .* file is run"):
            imgzoo.create_model("tiny", pretrained=str(path))
        assert not (tmp_path / "ran").exists()


def test_an_array_that_unpacks_beyond_reason_is_not_unpacked(tmp_path):
    import numpy as np

    np.savez_compressed(tmp_path / "w.npz", **{"fc.weight": np.zeros(1 << 25, np.float32)})
    with pytest.raises(WeightsError, match="unpacks to more than 100 times its size"):
        read_state(tmp_path / "w.npz")
    np.savez_compressed(tmp_path / "w.npz", a=np.zeros(1 << 12, np.float32))
    assert not read_state(tmp_path / "w.npz")["a"].any()
