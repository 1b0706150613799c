"""Every error that imgzoo raises on purpose, and the exit codes."""

from __future__ import annotations

import inspect

from imgzoo import errors

from .markdown import code, first_paragraph, plain, table

INTRO = """# Errors and exit codes

Errors are typed, one sentence, and say what to do. All derive from `imgzoo.errors.ImgzooError`; most derive from the
builtin error that fits as well, so `except ValueError` keeps working. On the command line the sentence is printed to
stderr; `imgzoo --debug` adds the traceback.
"""
CODES = (
    (0, "done"),
    (1, "a failure: a broken plugin, a full disk, scores that are no finite number, checks that found something"),
    (2, "what the user can mend: an argument, a name, a file, a missing package"),
    (130, "stopped by Ctrl-C (SIGINT); `train` has saved a checkpoint"),
    (143, "stopped by SIGTERM; `train` has saved a checkpoint"),
)


def page() -> str:
    found = [each for each in vars(errors).values() if inspect.isclass(each) and each.__module__ == errors.__name__]
    raised = [each for each in found if issubclass(each, errors.ImgzooError)]
    rows = [
        (code(each.__name__), parents(each), each.exit_code, plain(first_paragraph(each.__doc__))) for each in raised
    ]
    warned = [(code(each.__name__), parents(each), plain(first_paragraph(each.__doc__))) for each in found
              if issubclass(each, Warning)]  # fmt: skip
    return "\n\n".join((
        INTRO,
        table(("error", "is a", "exit code", "when"), rows),
        "## Warnings",
        table(("warning", "is a", "when"), warned),
        "## Exit codes",
        table(("code", "meaning"), CODES),
    )) + "\n"  # fmt: skip


def parents(kind: type) -> str:
    return ", ".join(code(base.__name__) for base in kind.__bases__)
