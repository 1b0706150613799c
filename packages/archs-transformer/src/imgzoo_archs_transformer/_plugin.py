"""What imgzoo reads at discovery: the catalog of transformer and token-mixer families. No torch."""

from imgzoo.plugin import Catalog, hookimpl

IMGZOO_API = (1, 0)


@hookimpl
def imgzoo_models():
    return Catalog.read(__package__)
