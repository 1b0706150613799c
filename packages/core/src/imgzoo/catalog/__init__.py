"""The catalog: one JSON file per model family, read into specs without importing any network. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo.door import lazy_door

_HOME = {  # public name -> module that holds it
    "Catalog": "imgzoo.catalog.read",
    "catalog_files": "imgzoo.catalog.read",
    "family_specs": "imgzoo.catalog.read",
    "read_json": "imgzoo.catalog.read",
    "weight_spec": "imgzoo.catalog.read",
    "MODEL_KEYS": "imgzoo.catalog.cells",
    "NORMALIZE": "imgzoo.catalog.cells",
    "expanded": "imgzoo.catalog.cells",
    "read_results": "imgzoo.catalog.results",
    "format_catalog": "imgzoo.catalog.write",
    "format_results": "imgzoo.catalog.write",
    "check": "imgzoo.catalog.examine",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from .cells import MODEL_KEYS as MODEL_KEYS
    from .cells import NORMALIZE as NORMALIZE
    from .cells import expanded as expanded
    from .examine import check as check
    from .read import Catalog as Catalog
    from .read import catalog_files as catalog_files
    from .read import family_specs as family_specs
    from .read import read_json as read_json
    from .read import weight_spec as weight_spec
    from .results import read_results as read_results
    from .write import format_catalog as format_catalog
    from .write import format_results as format_results
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)
