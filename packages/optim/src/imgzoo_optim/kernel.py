"""What a compiled update rule is: its arithmetic as a few lines of C, put into the loop of `loop.c`. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

COMMON = ("sign", "l2", "shrink", "rate", "last")
"""Constants every loop has: gradient's sign, L2 decay, decoupled decay and whether it comes last, learning rate."""
LOOP = Path(__file__).with_name("loop.c").read_text(encoding="utf-8")
APPLY = "P[i] = K[4] != 0.0f ? (p - K[3] * u) * K[2] : p * K[2] - K[3] * u;"
RETURN = "U[i] = u;"


class Kernel(NamedTuple):
    """A rule's arithmetic: from `p`, `g`, its state, its constants and the tensor's `factor` to the step `u`."""

    state: tuple[str, ...]
    constants: tuple[str, ...]
    body: str

    def source(self, applies: bool, loop: str = LOOP) -> str:
        """The C code, in the loop of a device; it writes the parameter, or returns the step."""
        names = [*self.state, *(() if applies else ("U",))]
        arrays = [name if name == "U" else f"S_{name}" for name in names]
        opened = [f"float *restrict {array} = row[{2 + k}];" for k, array in enumerate(arrays)]
        opened += [f"const float {name} = K[{len(COMMON) + k}];" for k, name in enumerate(self.constants)]
        macros = {
            "COLUMNS": 2 + len(names),
            "OPEN": " ".join(opened),
            "LOAD": " ".join(f"float {name} = S_{name}[i];" for name in self.state),
            "BODY": self.body,
            "STORE": " ".join(f"S_{name}[i] = {name};" for name in self.state),
            "FINISH": APPLY if applies else RETURN,
        }
        return "".join(f"#define {name} {text}\n" for name, text in macros.items()) + loop
