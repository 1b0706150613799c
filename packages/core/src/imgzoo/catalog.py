"""The catalog: one JSON file per model family, read into specs without importing any network. No torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from .specs import NOTHING, ModelSpec, WeightSpec

Row = Mapping[str, Any]

NORMALIZE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "zero": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "dpn": (
        (124 / 255, 117 / 255, 104 / 255),
        (1 / (0.0167 * 255), 1 / (0.0167 * 255), 1 / (0.0167 * 255)),
    ),
}
"""Named pairs of channel mean and standard deviation."""

FAMILY_KEYS = ("family", "target", "paper", "capabilities", "defaults", "spelling", "aliases", "models")
MODEL_KEYS = ("like", "target", "paper", "capabilities", "aliases", "defaults", "weights")
OWN_KEYS = frozenset(MODEL_KEYS) - {"like", "weights"}
CELLS = frozenset(WeightSpec._fields) - {"tag", "arch", "plugin"}
FIELD: dict[str, Any] = WeightSpec._field_defaults
CELL_TYPES: dict[str, Any] = {
    **{key: type(value) for key, value in FIELD.items()},
    "crop_pct": (float, int),
    "test_crop_pct": (float, int, type(None)),
    "test_input_size": (tuple, type(None)),
    "min_input_size": (tuple, type(None)),
}
SIZES = ("input_size", "test_input_size", "min_input_size")


class Catalog(list[ModelSpec]):
    """The model specs of a package, in the order of its catalog files."""

    @classmethod
    def read(cls, package: str | None, folder: str = "catalog") -> Catalog:
        """Read every `<package>/<folder>/*.json`; the package's networks are not imported."""
        catalog = cls()
        for path in catalog_files(package, folder):
            catalog.extend(family_specs(read_json(path)))
        return catalog


def catalog_files(package: str | None, folder: str = "catalog") -> list[str]:
    """Paths of the JSON files in a folder of a package, sorted; empty when there is no such folder."""
    if not package:
        raise ValueError("pass the package's name: Catalog.read(__package__)")
    root = os.path.join(_package_folder(package), folder)
    if not os.path.isdir(root):
        return []
    return [os.path.join(root, name) for name in sorted(os.listdir(root)) if name.endswith(".json")]


def _package_folder(package: str) -> str:
    module = sys.modules.get(package)
    places = getattr(module, "__path__", None)
    if places is None:
        from importlib.util import find_spec

        spec = find_spec(package)
        places = spec.submodule_search_locations if spec else None
    if not places:
        raise ModuleNotFoundError(f"there is no package '{package}'", name=package)
    return next(iter(places))


def read_json(path: str) -> dict[str, Any]:
    """Parse one catalog file; the error names the file."""
    with open(path, "rb") as file:
        try:
            return json.loads(file.read())
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error


def family_specs(data: Row) -> Iterator[ModelSpec]:
    """Expand one family file: defaults of the field, then the family's, the model's, the weight row's."""
    family = data["family"]
    if not isinstance(family, str):
        raise TypeError(f"the name of a family is text, not {type(family).__name__}")
    target, paper = data.get("target", ""), data.get("paper", "")
    capabilities = frozenset(data.get("capabilities", ()))
    shared = data.get("defaults", {})
    aliases = _aliases_by_model(data.get("aliases", {}))
    spelling = data.get("spelling", NOTHING)

    for name, row in expanded(data["models"]):
        options = dict(row)
        weights = options.pop("weights", None)
        own: Row = NOTHING
        if not OWN_KEYS.isdisjoint(options):
            own = {key: options.pop(key) for key in OWN_KEYS if key in options}
        cells = {**shared, **own["defaults"]} if "defaults" in own else shared
        own_paper = own.get("paper", paper)
        yield ModelSpec(
            name,
            own.get("target", target),
            options,
            CatalogWeights(name, weights, cells, own_paper) if weights else (),
            family,
            own_paper,
            frozenset(own["capabilities"]) if "capabilities" in own else capabilities,
            aliases.get(name, NOTHING) if "aliases" not in own else _own_aliases(name, own, aliases),
            spelling,
        )


def expanded(models: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """Each row with the options of the row before it that it is `like`; its other keys are its own."""
    options: dict[str, Row] = {}
    for name, row in models.items():
        if "like" in row:
            if row["like"] not in options:
                raise ValueError(f"{name} is like '{row['like']}', which is no row before it")
            row = {**options[row["like"]], **{key: value for key, value in row.items() if key != "like"}}
        options[name] = {key: value for key, value in row.items() if key not in MODEL_KEYS}
        yield name, row


class CatalogWeights(Sequence[WeightSpec]):
    """The weight rows of an architecture, made into specs when they are first looked at: a list of names needs none."""

    __slots__ = ("_cells", "_name", "_paper", "_rows", "_specs")

    def __init__(self, name: str, rows: Row, cells: Row, paper: str) -> None:
        if not isinstance(rows, dict):
            raise TypeError(f"the weights of {name} are no table")
        self._name, self._rows, self._cells, self._paper = name, rows, cells, paper
        self._specs: tuple[WeightSpec, ...] | None = None

    @property
    def specs(self) -> tuple[WeightSpec, ...]:
        if self._specs is None:
            made = (self._spec(tag, cells) for tag, cells in self._rows.items())
            self._specs = tuple(spec for spec in made if spec is not None)
        return self._specs

    def _spec(self, tag: str, cells: Row) -> WeightSpec | None:
        """One row; a malformed one is left out, and said so in the log."""
        try:
            return weight_spec(self._name, tag, {**self._cells, **cells}, self._paper)
        except (KeyError, TypeError, ValueError) as error:
            message = "imgzoo: the catalog row of %s.%s cannot be used (%s). Run 'imgzoo doctor'."
            _tell(message, self._name, tag, error)
            return None

    @overload
    def __getitem__(self, index: int) -> WeightSpec: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[WeightSpec, ...]: ...

    def __getitem__(self, index: int | slice) -> WeightSpec | tuple[WeightSpec, ...]:
        return self.specs[index]

    def __len__(self) -> int:
        return len(self.specs)

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, list | tuple | CatalogWeights) else NotImplemented  # pyright: ignore

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.specs)


def _own_aliases(name: str, own: Row, aliases: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    return {**aliases.get(name, NOTHING), **dict.fromkeys(own["aliases"], name)}


def _aliases_by_model(aliases: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Deprecated names, grouped by the architecture that each stands for."""
    grouped: dict[str, dict[str, str]] = {}
    for old, new in aliases.items():
        grouped.setdefault(new.partition(".")[0], {})[old] = new
    return grouped


def weight_spec(arch: str, tag: str, cells: Row, paper: str = "") -> WeightSpec:
    """One weight row from its merged cells; short forms (`normalize`, square sizes) are expanded."""
    normalize = cells.get("normalize")
    full = {key: value for key, value in cells.items() if key in CELLS}  # a newer core may know more cells
    if normalize is not None:
        mean, std = NORMALIZE[normalize] if isinstance(normalize, str) else normalize
        full["mean"], full["std"] = tuple(mean), tuple(std)
    for key in SIZES:
        size = full.get(key)
        if size is not None:
            channels, height, width = (3, size, size) if isinstance(size, int) else size
            full[key] = (channels + 0, height + 0, width + 0)
    if "hf_hub_id" not in full:
        full["hf_hub_id"] = f"timm/{arch}.{tag}"
    full.setdefault("paper", paper)
    for key, value in full.items():
        if not isinstance(value, CELL_TYPES[key]):
            raise TypeError(f"{key} is a {type(value).__name__}")
    return WeightSpec(tag, arch, **full)


def read_results(package: str, family: str) -> dict[str, Any]:
    """Published costs and scores of a family, by model name; empty when the package has none.

    A row is `{"params": n, "cost": [[size, GMACs, million activations]], "weights": {tag: {"imagenet":
    [top1, top5, size, crop, interpolation], "real": ..., "v2": ..., "a": ..., "r": ..., "sketch": ...}}}`.
    """
    try:
        path = os.path.join(_package_folder(package), "catalog", "results", f"{family}.json")
    except (ImportError, ValueError):  # a plugin object that was registered by hand has no package
        return {}
    if not os.path.exists(path):
        return {}
    try:
        return {name: row for name, row in read_json(path).items() if _are_results(row)}
    except (AttributeError, ValueError) as error:
        _tell("imgzoo: published results cannot be read (%s). Run 'imgzoo doctor'.", error)
        return {}


def _are_results(row: Any) -> bool:
    """Whether figures have the shape that `read_results` describes."""
    try:
        figures = [row.get("params", 0)]
        for size, gmacs, macts in row.get("cost", ()):
            figures += [size, gmacs, macts]
        for scores in row.get("weights", {}).values():
            for score in scores.values():
                top1, top5 = score[:2]
                figures += [top1, top5]
    except (AttributeError, TypeError, ValueError):
        return False
    return all(isinstance(figure, int | float) for figure in figures)


def _tell(message: str, *values: object) -> None:
    import logging

    logging.getLogger("imgzoo").warning(message, *values)


def format_catalog(data: Row) -> str:
    """The canonical text of a family file: one row a line, no cell that equals its default."""
    from ._catalog_text import format_catalog as write

    return write(data)


def format_results(results: Row) -> str:
    """The canonical text of a file of published results."""
    from ._catalog_text import format_results as write

    return write(results)


def check(data: Row) -> list[str]:
    """What is wrong with the shape of a family file, one sentence each; empty when nothing is."""
    from ._catalog_text import check as examine

    return examine(data)
