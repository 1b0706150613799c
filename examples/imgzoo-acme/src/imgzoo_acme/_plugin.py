"""What imgzoo reads at discovery: names and numbers only, no torch."""

from imgzoo.plugin import Catalog, hookimpl

IMGZOO_API = (1, 0)


@hookimpl
def imgzoo_models():
    return Catalog.read(__package__)
