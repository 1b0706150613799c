"""The catalog: one JSON file per model family, read into specs without importing any network. No torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from imgzoo.rules import wrong_field
from imgzoo.specs import NOTHING, ModelSpec, WeightSpec
from imgzoo.text import escaped

from .cells import CELLS, NORMALIZE, OWN_KEYS, SIZES, Row, expanded


class Catalog(list[ModelSpec]):
    """The model specs of a package, in the order of its catalog files."""

    @classmethod
    def read(cls, package: str | None, folder: str = "catalog") -> Catalog:
        """Read every `<package>/<folder>/*.json`; the package's networks are not imported.

        Raises `FileNotFoundError` where there is none, as in a wheel that was built without its data.
        """
        catalog, paths = cls(), catalog_files(package, folder)
        if not paths:
            raise FileNotFoundError(f"there is no folder '{folder}' of JSON files in {package}: is it in the wheel?")
        for path in paths:
            catalog.extend(family_specs(read_json(path)))
        return catalog


def catalog_files(package: str | None, folder: str = "catalog") -> list[str]:
    """Paths of the JSON files in a folder of a package, sorted; empty when there is no such folder.

    Raises `NotADirectoryError` for a package that lies in an archive.
    """
    if not package:
        raise ValueError("pass the package's name: Catalog.read(__package__)")
    roots = [os.path.join(place, folder) for place in package_folders(package)]
    for root in roots:
        archive = _file_above(root)
        if archive:
            raise NotADirectoryError(f"{package} lies in {archive}, and catalogs are read from folders: pip install it")
    paths = (os.path.join(root, name) for root in roots if os.path.isdir(root) for name in os.listdir(root))
    return sorted(path for path in paths if path.endswith(".json"))


def _file_above(path: str) -> str:
    """The file (an archive) that a path leads into; empty where there is none."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return "" if os.path.isdir(path) else path


def package_folders(package: str) -> list[str]:
    """Where a package is; a namespace package may be in several places."""
    module = sys.modules.get(package)
    places = getattr(module, "__path__", None)
    if places is None:
        from importlib.util import find_spec

        spec = find_spec(package)
        places = spec.submodule_search_locations if spec else None
    if not places:
        raise ModuleNotFoundError(f"there is no package '{package}'", name=package)
    return list(places)


def read_json(path: str) -> dict[str, Any]:
    """Parse one catalog file; the error names the file."""
    with open(path, "rb") as file:
        try:
            return json.loads(file.read())
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error


def tell(message: str, *values: object) -> None:
    """A line in the log."""
    import logging

    logging.getLogger("imgzoo").warning(message, *map(escaped, values))


def family_specs(data: Row) -> Iterator[ModelSpec]:
    """Expand one family file: defaults of the field, then the family's, the model's, the weight row's."""
    family = data["family"]
    if not isinstance(family, str):
        raise TypeError(f"the name of a family is text, not {type(family).__name__}")
    target, paper = data.get("target", ""), data.get("paper", "")
    capabilities = frozenset(data.get("capabilities", ()))
    shared = data.get("defaults", {})
    aliases = _aliases_by_model(data.get("aliases", {}))
    spelling, field = data.get("spelling", NOTHING), frozenset(data.get("field", ()))

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
            field,
        )


class CatalogWeights(Sequence[WeightSpec]):
    """The weight rows of an architecture, made into specs when they are first looked at: a list of names needs none."""

    checks_its_rows = True
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
            tell(message, self._name, tag, error)
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
    if "hf_hub_id" not in full and not full.get("url"):
        full["hf_hub_id"] = f"timm/{arch}.{tag}"
    full.setdefault("paper", paper)
    wrong = wrong_field(WeightSpec, {"tag": tag, **full}.items())
    if wrong:
        raise TypeError(wrong)
    return WeightSpec(tag, arch, **full)
