"""`python -m imgzoo_timm [--force] SCRIPT ...` or `-m MODULE ...`: run a program with imgzoo as its timm."""

import runpy
import sys
from pathlib import Path

from imgzoo.errors import ImgzooError

from .standin import install

USAGE = "usage: python -m imgzoo_timm [--force] (SCRIPT | -m MODULE) [ARGUMENT ...]"


def main(words: list[str]) -> int:
    force = words[:1] == ["--force"]
    words = words[force:]
    as_module = words[:1] == ["-m"]
    words = words[as_module:]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if not as_module and not Path(words[0]).exists():
        print(f"there is no script {words[0]}; {USAGE}", file=sys.stderr)
        return 2
    try:
        install(force)
    except ImgzooError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    sys.argv = words
    sys.path[0] = "" if as_module else str(Path(words[0]).resolve().parent)
    if as_module:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(words[0], run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
