"""Lookahead around any optimizer."""

from __future__ import annotations

from typing import Any

from imgzoo_optim import lookahead as native


class Lookahead(native.Lookahead):
    def __init__(self, base_optimizer: Any, alpha: float = 0.5, k: int = 6):
        super().__init__(base_optimizer, alpha, k)

    @property
    def is_second_order(self) -> bool:
        return self.second_order

    def sync_lookahead(self) -> None:
        self.synchronize()
