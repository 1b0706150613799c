"""Average the weights of checkpoints, and reduce a checkpoint to weights that can be shared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import UsageError
from imgzoo.loading.disk import replacing
from imgzoo.loading.source import from_folder
from imgzoo_train.files import storage
from imgzoo_train.files.checkpoints import Checkpoints, read
from imgzoo_train.models.answers import KINDS, listed
from imgzoo_train.runs.folder import RunFolder

Weights = dict[str, torch.Tensor]


@dataclass
class Loaded:
    """Weights, and the hub folder that describes their model (None for a bare file)."""

    name: str
    weights: Weights
    template: Path | None


def load_weights(path: Path, average: str = "") -> Loaded:
    """Weights of a hub folder, a run folder (its best), a checkpoint folder (perhaps one of its averages) or a file."""
    if average and (path / "checkpoints").is_dir():
        found = Checkpoints(path / "checkpoints").newest()
        if found is None:
            raise UsageError(f"{path} holds no checkpoint, and so no average '{average}'")
        path = found.folder
    if average and not (path / "state.json").is_file():
        raise UsageError(f"'{path}' holds one set of weights; --average takes a run folder or a checkpoint")
    if path.is_file() and path.suffix == ".safetensors":
        return Loaded(str(path), storage.read_tensors(path), None)
    if (path / "state.json").is_file():
        parts = read(path)
        if average:
            key = f"average-{average}"
            if key not in parts:
                found = ", ".join(part[8:] for part in parts if part.startswith("average-")) or "none"
                raise UsageError(f"{path} has no average '{average}'; it has {found}")
            parts["model"] = parts[key]["tensors"]
        best = path.parent.parent / "best"
        return Loaded(str(path), dict(parts["model"]), best if (best / "config.json").is_file() else None)
    for folder in (path, path / "best"):
        if (folder / "model.safetensors").is_file():
            template = folder if (folder / "config.json").is_file() else None
            return Loaded(str(folder), storage.read_tensors(folder / "model.safetensors"), template)
    raise UsageError(
        f"'{path}' holds no weights: give a run folder, a checkpoint, a saved folder or a .safetensors file"
    )


def checkpoints_of(path: Path, last: int = 0, best: int = 0) -> list[Path]:
    """The last or best checkpoints of a run folder; any other path as it is."""
    root = path / "checkpoints"
    if not root.is_dir() or not (last or best):
        return [path]
    store = Checkpoints(root)
    steps = store.steps()
    if best:
        found = store.newest()
        scores = (found.parts["progress"]["best"] if found else {}).get("scores", {})
        steps = sorted((step for step in steps if str(step) in scores), key=lambda step: -scores[str(step)])[:best]
    else:
        steps = steps[-last:]
    if not steps:
        raise UsageError(f"{path} holds no checkpoint to average")
    return [root / f"{step:08d}" for step in steps]


def refuse_other_answers(loaded: Sequence[Loaded]) -> None:
    """Raise `UsageError` for models whose outputs mean something else: the mean of those means nothing."""
    known = [(each.name, from_folder(f"local-dir:{each.template}")) for each in loaded if each.template]
    for name, source in known[1:]:
        first, other = known[0]
        if source.task != other.task:
            raise UsageError(f"{name} answers with {KINDS[source.task]}, {first} with {KINDS[other.task]}")
        if source.class_names and other.class_names and source.class_names != other.class_names:
            order = "in another order" if set(source.class_names) == set(other.class_names) else "others"
            raise UsageError(
                f"the classes of {name} are {order} than those of {first}: {listed(source.class_names)}, not "
                f"{listed(other.class_names)}"
            )


def average_weights(tables: Sequence[Weights], shares: Sequence[float] | None = None) -> Weights:
    """The mean of several tables of weights, in double precision; whole numbers come from the first.

    Raises `UsageError` when names or shapes differ.
    """
    if not tables:
        raise UsageError("there is nothing to average")
    shares = [1.0 / len(tables)] * len(tables) if shares is None else [share / sum(shares) for share in shares]
    first = tables[0]
    for table in tables[1:]:
        different = first.keys() ^ table.keys() or {n for n in first if first[n].shape != table[n].shape}
        if different:
            raise UsageError(f"the checkpoints are of different models: '{sorted(different)[0]}' does not match")
    return {
        name: sum(share * table[name].double() for share, table in zip(shares, tables)).to(tensor.dtype)  # type: ignore
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }


def write_weights(weights: Weights, template: Path | None, output: Path, dtype: torch.dtype | None = None) -> Path:
    """Write weights as a hub folder like `template`, or as a bare safetensors file; never over a run's own."""
    for run, own in ((output, True), (output.parent, output.name in ("best", "checkpoints"))):
        if own and RunFolder(run).config_file.is_file():
            raise UsageError(f"{output} belongs to the run in {run}; choose another --output")
    if dtype is not None:
        weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    if template is None or output.suffix == ".safetensors":
        target = output if output.suffix == ".safetensors" else output / "model.safetensors"
        storage.make_folder(target.parent)
        with storage.telling(target), replacing(target) as part:
            storage.write_tensors(part, {name: tensor.contiguous() for name, tensor in weights.items()})
        return target
    from imgzoo import create_model, save_model

    model: Any = create_model(f"local-dir:{template}", pretrained=True)
    known = model.state_dict()
    wrong = known.keys() ^ weights.keys()
    if wrong:
        raise UsageError(f"the weights do not fit {template}: '{sorted(wrong)[0]}' is in one of them only")
    with storage.telling(output):
        save_model(model, storage.make_folder(output), class_names=model.class_names, state=weights)
    return output
