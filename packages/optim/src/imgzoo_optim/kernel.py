"""What a compiled update rule is: its arithmetic as a few lines of C, put into `loop.c` or `rows.c`. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

COMMON = ("sign", "l2", "shrink", "rate", "last")
"""Constants every loop has: gradient's sign, L2 decay, decoupled decay and whether it comes last, learning rate."""
LOOP = Path(__file__).with_name("loop.c").read_text(encoding="utf-8")
ROWS = Path(__file__).with_name("rows.c").read_text(encoding="utf-8")
ELEMENT = "float p = P[i], g = K[0] * G[i] + K[1] * p, u;"
APPLY = "P[i] = K[4] != 0.0f ? (p - K[3] * u) * K[2] : p * K[2] - K[3] * u;"
RETURN = "U[i] = u;"


class Kernel(NamedTuple):
    """A rule's arithmetic: from `p`, `g`, its state, its constants and the tensor's `factor` to the step `u`.

    `body` changes the state. It may make the step, too; if it stands apart in `step`, which needs nothing that `body`
    declares or changes but the state, the rule has a form in two passes, with the sums over rows between them.
    """

    state: tuple[str, ...]
    constants: tuple[str, ...]
    body: str
    step: str = ""

    def source(self, applies: bool, loop: str = LOOP) -> str:
        """The C code, in the loop of a device; it writes the parameter, or returns the step."""
        arrays = () if applies else ("U",)
        return self._text(loop, arrays, BODY=f"{self.body} {self.step}", FINISH=APPLY if applies else RETURN)

    def rows(self) -> str:
        """The C code of the form in two passes."""
        return self._text(ROWS, (), BODY=self.body, STEP=self.step)

    def _text(self, loop: str, arrays: tuple[str, ...], **lines: str) -> str:
        names = [*(f"S_{name}" for name in self.state), *arrays]
        opened = [f"float *restrict {name} = row[{2 + k}];" for k, name in enumerate(names)]
        opened += [f"const float {name} = K[{len(COMMON) + k}];" for k, name in enumerate(self.constants)]
        macros = {
            "COLUMNS": 2 + len(names),
            "OPEN": " ".join(opened),
            "LOAD": " ".join([ELEMENT, *(f"float {name} = S_{name}[i];" for name in self.state)]),
            "STORE": " ".join(f"S_{name}[i] = {name};" for name in self.state),
            **lines,
        }
        return "".join(f"#define {name} {text}\n" for name, text in macros.items()) + loop
