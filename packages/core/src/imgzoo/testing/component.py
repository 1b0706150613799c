"""Checks of what plugins bring beside models. Each kind's contract is checked by the distribution that uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from imgzoo.errors import PluginLoadError
from imgzoo.registry import KINDS
from imgzoo.specs import load_target

from .outcome import Check, SkipCheck

CONTRACTS = {
    "optimizers": ("imgzoo-optim", "imgzoo_optim.testing:OPTIMIZER"),
    "schedulers": ("imgzoo-optim", "imgzoo_optim.testing:SCHEDULER"),
    "losses": ("imgzoo-train", "imgzoo_train.testing:LOSS"),
    "transforms": ("imgzoo-data", "imgzoo_data.testing:TRANSFORM"),
    "datasets": ("imgzoo-data", "imgzoo_data.testing:DATASET"),
    "loggers": ("imgzoo-train", "imgzoo_train.testing:LOGGER"),
    "trainers": ("imgzoo-train", "imgzoo_train.testing:TRAINER"),
    "commands": ("imgzoo-core", "imgzoo.testing.command:COMMAND"),
    "health_checks": ("imgzoo-core", "imgzoo.testing.command:HEALTH_CHECK"),
}
"""Kind -> the distribution that uses it, and the functions there that check one of them."""


class ComponentSubject:
    """A registered component; `example` is what it needs to be tried: a location, or options by name."""

    def __init__(self, kind: str, spec: Any, example: Any = None) -> None:
        self.kind, self.spec, self.example = kind, spec, example

    @property
    def name(self) -> str:
        """The full name."""
        return f"{self.spec.plugin}/{self.spec.name}"

    @property
    def options(self) -> dict[str, Any]:
        """The example, where it is options."""
        return dict(self.example or {})

    def __str__(self) -> str:
        return f"{KINDS[self.kind].noun.replace(' ', '-')}:{self.spec.name}"


def target_loads(subject: ComponentSubject) -> None:
    """What the target names is there and can be imported."""
    subject.spec.load()


def component_checks(kind: str, spec: Any, example: Any = None) -> Iterator[tuple[ComponentSubject, Check]]:
    """Every (subject, check) of one component."""
    subject = ComponentSubject(kind, spec, example)
    for fn in (target_loads, *contract(kind)):
        yield subject, Check(fn.__name__, "component", fn)


def contract(kind: str) -> Sequence[Callable[[ComponentSubject], None]]:
    """The functions that check a component of a kind; where what uses it is not installed, one that says so."""
    dist, target = CONTRACTS[kind]
    try:
        return load_target(target)
    except PluginLoadError as error:
        if not isinstance(error.__cause__, ModuleNotFoundError):
            raise

        def keeps_its_contract(subject: ComponentSubject) -> None:
            raise SkipCheck(f"what uses it is not here: pip install {dist}")

        return (keeps_its_contract,)
