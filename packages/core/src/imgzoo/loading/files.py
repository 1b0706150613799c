"""Read weight files without ever running what is in them."""

from __future__ import annotations

import json
import mmap
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from imgzoo.errors import WeightsError
from imgzoo.plain import is_table

from .disk import INDEX, read_config

WRAPPERS = ("state_dict_ema", "ema_state_dict", "model_ema", "model_ema_state_dict", "ema_model", "state_dict",
            "model_state_dict", "model_state", "model", "teacher", "student", "module", "net", "encoder")  # fmt: skip
"""Keys under which training scripts keep the weights; averaged ones come first."""
PREFIXES = ("module.", "_orig_mod.")
ROLES = ("ema", "teacher", "student", "encoder_q", "online", "base_encoder")
"""Parts of a training set-up, in the order in which one is taken: averages first, then what was trained."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
          "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}  # fmt: skip
MOST_PACKED, SMALL = 100, 1 << 26
"""How many times smaller an array may be packed than it is, once it has more than so many bytes."""
MOST_PICKLE = 1 << 20
"""How much of a refused pickle is looked at to say what it names."""
PLAIN = ("torch.", "collections.", "numpy.", "argparse.Namespace", "_codecs.encode")


def read_state(path: str | os.PathLike[str], use_ema: bool = True, mapped: bool = False) -> dict[str, Tensor]:
    """Tensors of a `.safetensors`, `.pth`/`.pt`/`.bin`/`.tar` or `.npz` file by name, each in memory of its own.

    `mapped` maps the file instead, which is for files that nobody writes into: what becomes of a mapped file happens to
    the tensors. Raises `WeightsError` when the file is missing, damaged, or holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"there is no weight file '{path}'")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return strip_wrappers(_read_safetensors(path, mapped))
    if suffix == ".npz":
        return _read_npz(path)
    if suffix in (".pth", ".pt", ".bin", ".tar", ".ckpt"):
        state = strip_wrappers(unwrap(read_torch(path, mapped), path, use_ema))
        _refuse_odd(state, path)
        return apart(state)
    raise WeightsError(f"'{path}' is no weight file: use .safetensors, .pth, .pt, .bin or .npz")


def is_index(path: Path) -> bool:
    """Whether a file only tells in which files of its folder the tensors are."""
    return path.name.endswith(INDEX)


def read_shards(
    path: Path, needed: Callable[[Sequence[str]], Sequence[str]], shard: Callable[[str], Path], mapped: bool = False
) -> dict[str, Tensor]:
    """The tensors that are `needed` of a model in several files, whose `*.safetensors.index.json` is at `path`.

    `shard` finds one of the files; those without such a tensor are not asked for. Raises `WeightsError` for an index
    that is damaged or leads out of its folder, and for a file or tensor that is missing.
    """
    places = read_config(path).get("weight_map")
    if not is_table(places) or not all(isinstance(each, str) for each in places.values()):
        raise WeightsError(f"'{path}' is no index of weight files: it has no 'weight_map'")
    wanted = list(needed(list(places)))
    state: dict[str, Tensor] = {}
    for name in sorted({places[key] for key in wanted}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightsError(f"'{path}' names '{name}', which is no .safetensors file of its folder")
        state |= read_state(shard(name), mapped=mapped)
    lost = [key for key in wanted if key not in state]
    if lost:
        raise WeightsError(f"'{path}' promises {lost[0]} in '{places[lost[0]]}', which does not have it")
    return {key: state[key] for key in wanted}


def _read_safetensors(path: Path, mapped: bool) -> dict[str, Tensor]:
    """The tensors of a file, read, or as views into a private mapping; each has a storage of its own.

    The library checks the header (sizes, offsets, overlaps); the tensors are made here at a fifth of the cost.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"), path.open("rb", buffering=0) as file:
            start = 8 + int.from_bytes(_exactly(file, bytearray(8)), "little")
            header = json.loads(_exactly(file, bytearray(start - 8)))
            header.pop("__metadata__", None)
            if mapped:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
                return {name: _view(data, start, **row) for name, row in header.items()}
            return {name: _copy(file, start, **row) for name, row in header.items()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(f"'{path}' is no readable safetensors file: {error}") from error


def _exactly(file: Any, into: Any) -> Any:
    """Fill a buffer from a file; raises `ValueError` where it ends before."""
    view = memoryview(into)
    while len(view):
        count = file.readinto(view)
        if not count:
            raise ValueError("it ends early")
        view = view[count:]
    return into


def _copy(file: Any, start: int, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """One tensor of an open safetensors file."""
    tensor = torch.empty(shape, dtype=DTYPES[dtype], device="cpu")
    file.seek(start + data_offsets[0])
    if tensor.numel():
        _exactly(file, tensor.reshape(-1).view(torch.uint8).numpy())
    return tensor


def _refuse_odd(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise for a tensor without plain values (sparse, quantized, nested, complex, or only described), and for one that
    repeats few values beyond reason.
    """
    for key, value in state.items():
        odd = value.is_nested or value.is_quantized or value.is_meta or value.is_complex()
        if odd or value.layout != torch.strided:
            raise WeightsError(
                f"'{path}' holds '{key}' as a sparse, quantized, nested, complex or meta tensor; save plain values"
            )
        size = value.numel() * value.itemsize
        if size > SMALL and size > MOST_PACKED * value.untyped_storage().nbytes():
            raise WeightsError(f"'{path}' repeats few values to {size} bytes as '{key}': these are no weights")


def apart(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with a copy of each tensor that overlaps another or itself, or is a part of a larger storage."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        whole = value.untyped_storage().nbytes() == value.numel() * value.itemsize
        if not whole or value.data_ptr() in seen:
            value = value.clone(memory_format=torch.contiguous_format)
        if value.numel():
            seen.add(value.data_ptr())
        found[key] = value
    return found


def _view(data: mmap.mmap, start: int, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    """One tensor of a mapped safetensors file; copied only where it lies unaligned."""
    kind = DTYPES[dtype]
    begin, end = (start + offset for offset in data_offsets)
    if begin == end:
        return torch.empty(shape, dtype=kind, device="cpu")
    if begin % kind.itemsize:
        return torch.frombuffer(bytearray(data[begin:end]), dtype=kind).view(shape)
    return torch.frombuffer(data, dtype=kind, count=(end - begin) // kind.itemsize, offset=begin).view(shape)


def _read_npz(path: Path) -> dict[str, Tensor]:
    import zipfile

    import numpy as np

    try:
        with zipfile.ZipFile(path) as archive:
            packed = [row for row in archive.infolist() if row.file_size > MOST_PACKED * max(1, row.compress_size)]
        if any(row.file_size > SMALL for row in packed):
            raise WeightsError(f"'{path}' unpacks to more than {MOST_PACKED} times its size: these are no weights")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: cast(Any, torch).from_numpy(arrays[name]) for name in arrays.files}
    except WeightsError:
        raise
    except Exception as error:  # of the archive, its compression, or the arrays: they have no common base
        raise WeightsError(f"'{path}' is no readable array file (nothing pickled is accepted): {error}") from error


def read_torch(path: Path, mapped: bool = False) -> Any:
    """What `torch.save` wrote: tensors, numbers and tables of them, and a script's options; nothing in it is run.

    Raises:
        WeightsError: it holds anything else, or is damaged.
    """
    from argparse import Namespace
    from zipfile import is_zipfile

    try:
        with torch.serialization.safe_globals([Namespace, *_numpy_scalars()]):  # what scripts keep beside weights
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zipfile(path))
    except Exception as error:  # the unpickler's errors have no common base
        found = re.search(r"GLOBAL (\S+)", str(error))
        if name := found[1] if found else _called(path):
            raise WeightsError(
                f"'{path}' names '{name}', so it was not loaded: weights are tensors, and nothing in a file is run"
            ) from error
        if (head := _head(path)) is not None:
            raise WeightsError(f"'{path}' is no file that torch wrote: it {head}") from error
        lines = str(error).strip().split("\n")  # the first may be advice to load unsafely
        told = next((line for line in lines if "nsupported" in line), lines[0])
        first = told.strip().split(". ")[0][:200]
        raise WeightsError(f"'{path}' is damaged or holds more than tensors, so it was not loaded: {first}") from error


def _head(path: Path) -> str | None:
    """How a file begins that is neither an archive nor a pickle, in words: a page of a failed download, a pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(24)
    except OSError:
        return None
    if not head:
        return "is empty"
    text = head.decode("latin-1").split("\n")[0].rstrip()
    return None if head.startswith((b"PK", b"\x80")) or not text.isprintable() else f"begins with '{text}'"


def _called(path: Path) -> str:
    """The first function or class that a pickle of any protocol names, besides those of tensors; empty where it names
    none. Its operations are read, not run.
    """
    import pickletools
    import zipfile

    texts: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                inner = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                data = archive.open(inner).read(MOST_PICKLE)
        else:
            with path.open("rb") as file:
                data = file.read(MOST_PICKLE)
        for code, argument, _ in pickletools.genops(data):
            texts = [*texts[-1:], argument] if isinstance(argument, str) else texts
            name = ".".join(texts if code.name == "STACK_GLOBAL" else str(argument).split())
            if code.name in ("GLOBAL", "INST", "STACK_GLOBAL") and not name.startswith(PLAIN):
                return name
    except Exception:  # a damaged file is told as such
        return ""
    return ""


def _numpy_scalars() -> list[Any]:
    """What a pickled numpy number consists of: no constructor among them runs code of the file."""
    import numpy as np
    from numpy._core.multiarray import scalar

    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefdg"}
    return [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")] + [np.dtype, *kinds]


def unwrap(data: Any, path: Path, use_ema: bool = True) -> dict[str, Tensor]:
    """Find the mapping from names to tensors inside a training checkpoint."""
    for _ in range(4):
        if not is_table(data):
            break
        tensors = {str(key): value for key, value in data.items() if isinstance(value, Tensor)}
        inner = [key for key in WRAPPERS if is_table(data.get(key)) and data[key]]
        if not inner and not tensors:  # a name of the script's own
            inner = [key for key, value in data.items() if _holds_tensors(value)]
            inner = inner if len(inner) == 1 else []
        if not use_ema:
            inner = [key for key in inner if "ema" not in key] or inner
        if tensors and not inner:
            return tensors
        if not inner:
            break
        data = data[inner[0]]
    raise WeightsError(f"'{path}' holds no state dict")


def _holds_tensors(value: Any) -> bool:
    return is_table(value) and bool(value) and all(isinstance(each, Tensor) for each in value.values())


def strip_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what wrappers of torch put before every name (`module.`, `_orig_mod.`), and an average's own counter."""
    counter = state.get("n_averaged")
    if counter is not None and not counter.ndim and len(state) > 1:
        state = {key: value for key, value in state.items() if key != "n_averaged"}
    for prefix in (*PREFIXES, *PREFIXES):
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def strip_prefix(state: dict[str, Tensor], needed: Collection[str]) -> tuple[dict[str, Tensor], str]:
    """The state below the one prefix under which all `needed` names are, and that prefix; "" where there is none.

    Of several (a student and its teacher, a query and a key encoder) the one in `ROLES` is taken, and where that does
    not decide it is a `WeightsError`.
    """
    first = min(needed, key=len, default="")
    if not first or first in state:
        return state, ""
    ending = f".{first}"
    found = [key.removesuffix(first) for key in state if key.endswith(ending)]
    found = [prefix for prefix in found if all(prefix + name in state for name in needed)]
    if len(found) > 1:
        found = next((kept for role in ROLES if (kept := [each for each in found if role in each])), found)
    if len(found) > 1:
        raise WeightsError(
            f"the file holds several networks that fit, under {', '.join(found)}; save the one you mean alone"
        )
    if not found:
        return state, ""
    prefix = found[0]
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}, prefix
