"""Signatures as they were when they were compared with the peer: `python packages/timm/tests/test_signatures.py` writes
the table again, the parity tests compare."""

import importlib
import inspect
from enum import EnumMeta
from pathlib import Path

import imgzoo_timm

TABLE = Path(__file__).with_name("signatures.txt")


def shown(value):
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)


STARS = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def default(parameter):
    return "" if parameter.default is parameter.empty else f"={shown(parameter.default)}"


def inherited(thing):
    """Whether Python or torch, whose versions differ in that, say how a class is made."""
    return isinstance(thing, EnumMeta) or getattr(thing.__init__, "__module__", "").startswith("torch.")


def lines():
    for name in imgzoo_timm.PACKAGES:
        importlib.import_module(f"imgzoo_timm.{name}")
    from imgzoo_timm._door import rooms

    for path in sorted(path for path in rooms if path.count(".") == 1):
        for name, _ in sorted(rooms[path].homes.items()):
            thing = getattr(importlib.import_module(path), name)
            if not callable(thing) or inherited(thing):
                continue
            try:
                parameters = inspect.signature(thing).parameters.values()
            except (TypeError, ValueError):
                continue
            words = [STARS.get(each.kind, "") + each.name + default(each) for each in parameters]
            yield f"{path.removeprefix('imgzoo_timm.')}.{name}({', '.join(words)})"


def test_signatures_stay():
    assert list(lines()) == TABLE.read_text().splitlines()


if __name__ == "__main__":
    TABLE.write_text("\n".join(lines()) + "\n")
