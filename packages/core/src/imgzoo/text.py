"""Text for people, names without control characters and in natural order, and JSON for programs. No torch."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
"""What a name of a model, tag, component or command may be."""
MOST_TOLD = 2000
_DIGITS = re.compile(r"(\d+)")


def safe(text: object) -> str:
    """One printable line: terminal escapes removed, line breaks and tabs as spaces, other control characters as `?`."""
    line = str(text)
    if line.isprintable():
        return line
    line = " ".join(_ESCAPE.sub("", line).split())
    return line if line.isprintable() else "".join(char if char.isprintable() else "?" for char in line)


def escaped(text: object, kept: str = "\n\t") -> str:
    """The text with what is not printable written as an escape (`\\x1b`), but for what is `kept`.

    Bytes of a file name that are no UTF-8 (lone surrogates) are written as those bytes, `\\xe9`.
    """
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(char if char.isprintable() or char in kept else _written(char) for char in whole)


def _written(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return char.encode("unicode_escape", "surrogatepass").decode()


def shell_word(text: str) -> str:
    """The text as one word of bash; what is not printable is written in bytes, and so shown."""
    import shlex

    if escaped(text) == text:
        return shlex.quote(text)
    written = (char if char.isprintable() and char not in "'\\" else _in_bytes(char) for char in text)
    return f"$'{''.join(written)}'"


def _in_bytes(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def natural(name: str) -> list[str | int]:
    """Sort key with numbers by value: resnet18 before resnet101."""
    parts: list[str | int] = _DIGITS.split(name)  # type: ignore[assignment]
    parts[1::2] = map(int, parts[1::2])
    return parts


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def told(error: BaseException) -> str:
    """Kind and text of an error, of a text without end the beginning; one whose text cannot be had is still told."""
    try:
        text = f"{type(error).__name__}: {error}"
        return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}..."
    except BaseException as worse:
        return f"{type(error).__name__}, whose text raises {type(worse).__name__}"


def counted(number: int, noun: str) -> str:
    """`1 class`, `1,437 classes`."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    whole = round(seconds)
    for size, name, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def json_text(value: Any, indent: int | None = 1) -> str:
    """`value` as JSON that every reader takes and every terminal shows.

    Null stands for a number that is not finite, which the format cannot write; what is not printable is escaped.
    """
    text = json.dumps(_finite(value), ensure_ascii=False, indent=indent, default=_plain)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    return sorted(value, key=str) if isinstance(value, set | frozenset) else str(value)
