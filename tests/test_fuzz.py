"""What comes from outside, mutated at random: each reader answers, or says in one typed sentence why it does not.

`nox -s fuzz` does it for long, from a new seed that it prints; a slice of it runs with the tests. A failure names
target, seed and number; `IMGZOO_FUZZ_SEED=SEED pytest tests/test_fuzz.py -k TARGET` runs it again.
"""

from __future__ import annotations

import functools
import io
import json
import os
import random
import resource
import shutil
import tarfile
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import imgzoo
from imgzoo.errors import ImgzooError
from imgzoo.loading.files import read_state
from imgzoo_data import create_dataset
from imgzoo_data.decode import decode_image
from imgzoo_data.transforms.resample import Crop, resample
from imgzoo_optim import create_optimizer
from imgzoo_train.files import checkpoints
from imgzoo_train.files.checkpoints import Checkpoints, Retention

COUNT = int(os.environ.get("IMGZOO_FUZZ_COUNT", "60"))
SECONDS = float(os.environ.get("IMGZOO_FUZZ_SECONDS", "4"))
SEED = int(os.environ.get("IMGZOO_FUZZ_SEED", "0"))
MOST_SECONDS, MOST_MB = 10.0, 700
"""What one case may take."""
NUMBERS = (0, 1, -1, 7, 255, 2**31, 2**63, 2_000_000_000, 1e308, 0.5)
WORDS = (None, True, "", "../../etc/passwd", "\x1b[31m", "\udce9", [], {}, [[]], "9" * 400, float("nan"), "a" * 5000)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few changes of single bytes, numbers, lengths and stretches."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        if not out:
            return bytes(chance.randbytes(8))
        at, kind = chance.randrange(len(out)), chance.randrange(7)
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.choice((0, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            number = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(data)))
            out[at : at + 4] = number.to_bytes(4, chance.choice(("big", "little")))
        elif kind == 3:
            del out[at : at + chance.choice((1, 4, 64, 4096))]
        elif kind == 4:
            stretch = out[at : at + chance.choice((1, 4, 64))]
            out[at:at] = stretch * chance.choice((1, 3, 50))
        elif kind == 5:
            del out[at:]
        else:
            out[at:at] = chance.randbytes(chance.choice((1, 8, 200)))
    return bytes(out)


def changed(tree: object, chance: random.Random) -> object:
    """A JSON value with one thing in it replaced, taken away or nested deep."""
    if isinstance(tree, dict) and tree and chance.random() < 0.9:
        key = chance.choice(list(tree))
        kind = chance.randrange(12)
        rest = {other: value for other, value in tree.items() if other != key}
        if kind == 0:
            return rest
        return {
            **rest,
            chance.choice((key, f"{key}_", "__metadata__")) if kind == 1 else key: changed(tree[key], chance),
        }
    if isinstance(tree, list) and tree and chance.random() < 0.7:
        at = chance.randrange(len(tree))
        return [*tree[:at], changed(tree[at], chance), *tree[at + 1 :]]
    if chance.random() < 0.05:
        return functools.reduce(lambda inner, _: [inner], range(900), 1)
    return chance.choice(NUMBERS if chance.random() < 0.6 else WORDS)


def text_of(tree: object, chance: random.Random) -> bytes:
    """A changed tree as JSON, now and then nested deeper than any parser goes."""
    if chance.random() < 0.03:
        return b"[" * 200_000
    return json.dumps(changed(tree, chance)).encode("utf-8", "surrogatepass")


def picture(chance: random.Random) -> Image.Image:
    size = chance.choice(((1, 1), (16, 9), (33, 20)))
    pixels = np.frombuffer(chance.randbytes(size[0] * size[1] * 4), np.uint8).reshape(size[1], size[0], 4)
    return Image.fromarray(pixels).convert(chance.choice(("RGB", "L", "RGB", "P")))


# targets: each gets a source of chance and a folder, and makes one case


def images(kind: str, **options: object):
    def run(chance: random.Random, folder: Path) -> None:
        image, out = picture(chance), io.BytesIO()
        image = image.convert("RGB") if kind in ("JPEG", "WEBP") else image
        image.save(out, kind, **{name: chance.choice(values) for name, values in options.items()})
        backend = chance.choice(("exact", "fast", "reference"))
        array = decode_image(
            mutated(out.getvalue(), chance), chance.choice((1, 3)), backend=backend, max_pixels=1 << 22
        )
        assert array.dtype == np.uint8 and array.ndim == 3

    return run


STATE = {
    "a.weight": torch.arange(12.0).reshape(3, 4),
    "a.bias": torch.ones(3),
    "n": torch.tensor(5),
    "e": torch.empty(0),
}


def read_all(path: Path, chance: random.Random) -> None:
    for value in read_state(path, mapped=chance.random() < 0.5).values():
        float(value.double().sum())


def safetensors_file(chance: random.Random, folder: Path) -> None:
    data = save(STATE)
    if chance.random() < 0.5:
        length = int.from_bytes(data[:8], "little")
        header = text_of(json.loads(data[8 : 8 + length]), chance)
        data = len(header).to_bytes(8, "little") + header + data[8 + length :]
    else:
        data = mutated(data, chance)
    (folder / "x.safetensors").write_bytes(data)
    read_all(folder / "x.safetensors", chance)


def npz_file(chance: random.Random, folder: Path) -> None:
    out = io.BytesIO()
    write = chance.choice((np.savez, np.savez_compressed))
    write(out, **{name: value.numpy() for name, value in STATE.items()})
    (folder / "x.npz").write_bytes(mutated(out.getvalue(), chance))
    read_all(folder / "x.npz", chance)


def pth_file(chance: random.Random, folder: Path) -> None:
    odd = [torch.eye(3).to_sparse(), torch.empty(2, device="meta"), torch.tensor(1.0), torch.ones(1).expand(4), None, 3]
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"state_dict": {**STATE, "odd": chance.choice(odd)}, "epoch": 3}, out)
    data = out.getvalue()
    (folder / "x.pth").write_bytes(mutated(data, chance) if chance.random() < 0.8 else data)
    read_all(folder / "x.pth", chance)


@functools.cache
def model_folder() -> dict[str, bytes]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        imgzoo.save_model(imgzoo.create_model("test_resnet", num_classes=3), folder, class_names=["a", "b", "c"])
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def config_file(chance: random.Random, folder: Path) -> None:
    for name, data in model_folder().items():
        (folder / name).write_bytes(data)
    config = (folder / "config.json").read_bytes()
    wrong = text_of(json.loads(config), chance) if chance.random() < 0.8 else mutated(config, chance)
    (folder / "config.json").write_bytes(wrong)
    imgzoo.create_model(folder, pretrained=True)


def checkpoint_folder(chance: random.Random, folder: Path) -> None:
    """Whatever is done to the newest, also with hashes that fit, another is reached, and it is the right one."""
    store = Checkpoints(folder / "c", Retention(last=5), background=False, warn=lambda text: None)
    for step in (1, 2, 3):
        store.save(
            step, {"model": {"w": torch.full((4,), float(step))}, "progress": {"step": step, "best": (1.5, None)}}
        )
    newest = folder / "c" / "00000003"
    path = newest / chance.choice(("model.safetensors", "state.json", "manifest.json"))
    if path.suffix == ".json" and chance.random() < 0.5:
        path.write_bytes(text_of(json.loads(path.read_bytes()), chance))
    else:
        path.write_bytes(mutated(path.read_bytes(), chance))
    if chance.random() < 0.5 and path.name != "manifest.json":  # by someone who knows the format
        files = {each.name: checkpoints.storage.file_entry(each) for each in newest.iterdir() if each.suffix != ".x"}
        files.pop("manifest.json")
        (newest / "manifest.json").write_text(json.dumps({"format": checkpoints.FORMAT, "files": files}))
    found = store.newest()
    assert found is not None
    if found.folder != newest:
        assert found.folder.name == "00000002" and found.rejected
        assert torch.equal(found.parts["model"]["w"], torch.full((4,), 2.0))


def archive(kind: str):
    def run(chance: random.Random, folder: Path) -> None:
        path = folder / f"x.{kind}"
        packed = chance.choice((0, 8))
        with tarfile.open(path, "w") if kind == "tar" else zipfile.ZipFile(path, "w", packed) as file:
            for number in range(4):
                out = io.BytesIO()
                picture(chance).save(out, "PNG")
                name = f"{'ab'[number % 2]}/{number}.png"
                if isinstance(file, tarfile.TarFile):
                    info = tarfile.TarInfo(name)
                    info.size = len(out.getvalue())
                    file.addfile(info, io.BytesIO(out.getvalue()))
                else:
                    file.writestr(name, out.getvalue())
        path.write_bytes(mutated(path.read_bytes(), chance))
        source = create_dataset(f"{kind}:{path}")
        for index in range(len(source)):
            bytes(source[index].data)

    return run


def csv_file(chance: random.Random, folder: Path) -> None:
    rows = ["path,label,split", *(f"{n}.png,{chance.choice(('ant', n, 2_000_000_000, ''))},train" for n in range(6))]
    data = "\n".join(rows).encode()
    (folder / "x.csv").write_bytes(mutated(data, chance) if chance.random() < 0.8 else data)
    form = chance.choice(
        ("", "?target_format=number", "?target_format=labels", "?target_format=value", "?num_classes=9")
    )
    source = create_dataset(f"csv:{folder / 'x.csv'}{form}")
    assert len(source.class_names) < 10_000 and len(str(source.describe())) < 1_000_000


def resize_kernel(chance: random.Random, folder: Path) -> None:
    """The compiled loop gives Pillow's pixels for any region, size and window."""
    height, width = (chance.choice((1, 5, 6, 7, 31, 64, 200)) for _ in range(2))
    array = np.frombuffer(chance.randbytes(height * width * 3), np.uint8).reshape(height, width, 3)
    array = array[:, ::-1] if chance.random() < 0.2 else array[::-1] if chance.random() < 0.2 else array
    top, left = chance.randrange(height), chance.randrange(width)
    box = (top, left, chance.randint(1, height - top), chance.randint(1, width - left))
    size, target = ((chance.randint(1, 90), chance.randint(1, 90)) for _ in range(2))
    offset = (chance.randint(-20, 60), chance.randint(-20, 60))
    crop = Crop(box, size, chance.choice(("box", "bilinear", "bicubic", "lanczos", "nearest")), target, offset)
    seen = all(min(size[i], offset[i] + target[i]) - max(0, offset[i]) > 0 for i in (0, 1))
    if seen:
        assert torch.equal(resample(array, crop, "exact"), resample(array, crop, "pillow"))


def optimizer_kernel(chance: random.Random, folder: Path) -> None:
    """The compiled loop and the rule's tensor operations go the same way, whatever lies beside or between."""
    name = chance.choice(("lion", "adan", "lamb", "nadamw", "adabelief", "adopt", "mars"))
    shapes = [chance.choice(((), (1,), (7,), (3, 5), (2, 3, 4, 5), (0,))) for _ in range(chance.randint(1, 4))]
    torch.manual_seed(chance.randrange(1 << 30))
    ends = []
    starts, grads = [torch.randn(shape) for shape in shapes], [torch.randn(shape) for shape in shapes]
    strided = chance.random() < 0.3
    for compiled in (True, False):
        params = [torch.nn.Parameter(start.clone()) for start in starts]
        optimizer = create_optimizer(name, params, lr=0.01, weight_decay=0.1)
        if not compiled:
            optimizer.kernel = None  # type: ignore[attr-defined]
        for _ in range(3):
            for param, grad in zip(params, grads):
                param.grad = grad.clone()
                if strided and grad.ndim == 2:
                    param.grad = grad.t().contiguous().t()
            optimizer.step()
        ends.append(params)
    for one, other in zip(*ends):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


TARGETS = {
    "jpeg": images("JPEG", quality=(5, 90), progressive=(True, False), subsampling=(0, 2)),
    "png": images("PNG", compress_level=(0, 9)),
    "gif": images("GIF"),
    "webp": images("WEBP", lossless=(True, False)),
    "tiff": images("TIFF", compression=(None, "tiff_lzw", "tiff_deflate", "packbits")),
    "safetensors": safetensors_file,
    "npz": npz_file,
    "pth": pth_file,
    "config": config_file,
    "checkpoint": checkpoint_folder,
    "tar": archive("tar"),
    "zip": archive("zip"),
    "csv": csv_file,
    "resize-kernel": resize_kernel,
    "optimizer-kernel": optimizer_kernel,
}


@pytest.mark.parametrize("target", TARGETS)
def test_random_changes(target, tmp_path, capsys):
    until, done = time.monotonic() + SECONDS, 0
    with capsys.disabled():
        print(f" {target}: seed {SEED}", end="", flush=True)  # also where a case ends the process
    while done < COUNT and time.monotonic() < until:
        case = f"{target}, seed {SEED}, number {done}"
        folder = tmp_path / str(done)
        folder.mkdir()
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                TARGETS[target](random.Random(f"{target}:{SEED}:{done}"), folder)
        except ImgzooError as error:
            assert "\n" not in str(error) and str(error).isprintable(), f"{case}: {error!r}"
        except Exception as error:
            raise AssertionError(f"{case}: {type(error).__name__}: {error}") from error
        assert time.process_time() - started < MOST_SECONDS, f"{case} takes too long"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown < MOST_MB, f"{case} takes {grown:.0f} MB"
        shutil.rmtree(folder)
        done += 1
    assert done
