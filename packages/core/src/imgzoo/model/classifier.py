"""Pooling and classifiers: naming, replacing and removing them."""

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.options import plain_numbers

from .tables import Sized


class Parts(NamedTuple):
    """Where a network keeps what: attribute names, in the order of the forward path.

    `stem` and `norm` are called one after another (methods count too); `stages` are modules, and a single name may be
    a container of them. `pool` and `head` are dotted paths; a network with several classifiers names them all in
    `head`; one whose part is None is not there. `taught` is the part with the one that learned from a teacher, where a
    new classifier takes its place too; the constructor leaves it out for `distilled=False`. `tail` are modules and
    parameters that only the way from the last level to the logits needs.
    """

    stem: tuple[str, ...] = ("stem",)
    stages: tuple[str, ...] = ("stages",)
    norm: tuple[str, ...] = ()
    pool: str = "head.global_pool"
    head: str | tuple[str, ...] = "head.fc"
    tail: tuple[str, ...] = ("head.norm", "head.pre_logits")
    taught: str = ""


class Classified(Sized):
    """A network with none, one or several classifiers; `parts` says where."""

    parts: ClassVar[Parts] = Parts()
    reads_maps: ClassVar[bool | None] = None
    """Whether the classifier takes a map (B, C, H, W), too, with one answer a place; None says: one that stands by
    itself behind a pool of maps does not."""
    if TYPE_CHECKING:  # TorchScript would read annotations
        num_classes: int
        num_features: int
        head_hidden_size: int
        model_args: dict[str, Any]

    def _heads(self) -> tuple[str, ...]:
        """Paths of the classifiers that are there."""
        head = self.parts.head
        return tuple(path for path in ((head,) if isinstance(head, str) else head) if self._part(path) is not None)

    def _part(self, path: str) -> Any:
        """A part, or None where it or what holds it is left out."""
        part: Any = self
        for name in path.split("."):
            part = None if part is None else getattr(part, name)
        return part

    def get_classifier(self) -> Any:
        """The classifier module; a tuple where there are several."""
        heads = tuple(self.get_submodule(path) for path in self._heads())
        return heads[0] if len(heads) == 1 else heads

    def _set_pool(self, global_pool: str) -> None:
        pool: Any = self.get_submodule(self.parts.pool)
        before = pool.width
        owner = self.get_submodule(self.parts.pool.rpartition(".")[0])
        getattr(owner, "set_pool", pool.set)(global_pool)
        self.head_hidden_size = self.head_hidden_size // before * pool.width

    def pool_kind(self) -> str:
        """How the model pools: `avg`, `token`, ..., `""` for not at all."""
        return self.get_submodule(self.parts.pool).kind  # type: ignore[return-value]

    def check_vector(self, num_classes: int, global_pool: str) -> None:
        """Raise `UsageError` where the classifier would get a map (B, C, H, W) or tokens that it does not take."""
        reads, path = self.reads_maps, self.parts.pool
        if reads is None:
            pool = getattr(self, path, None) if path and "." not in path else None
            reads = getattr(pool, "dims", ()) != (2, 3)
        if num_classes and not global_pool and not reads:
            raise UsageError("the classifier reads a pooled vector: global_pool '' needs num_classes=0")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new classifier of the same device and dtype; 0 classes removes it, None keeps the pool.

        Several classifiers are all new, but for `parts.taught`, which goes. A pool that the family does not offer is a
        `UsageError` and changes nothing.
        """
        num_classes = plain_numbers(num_classes)
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
            raise UsageError(f"num_classes must be a whole number >= 0, got {num_classes!r}")
        self.check_vector(num_classes, self.pool_kind() if global_pool is None else global_pool)
        if global_pool is not None:
            try:
                self._set_pool(global_pool)
            except UsageError:
                raise
            except ValueError as error:
                raise UsageError(str(error)) from error
        self._forget_taught()
        like = next(p for p in self.parameters() if p.is_floating_point())
        for i, path in enumerate(self._heads()):
            parent, _, name = path.rpartition(".")
            owner = self.get_submodule(parent)
            bias = getattr(getattr(owner, name), "bias", True) is not None
            new: nn.Module = nn.Identity()
            if num_classes:
                new = self._new_head(i, num_classes, bias).to(device=like.device, dtype=like.dtype)
            setattr(owner, name, new.train(self.training))
        self.num_classes = num_classes

    def _forget_taught(self) -> None:
        """Leave out the classifier that learned from a teacher, and let saved files know of it."""
        taught = self.parts.taught
        if taught and self._part(taught) is not None:
            parent, _, name = taught.rpartition(".")
            setattr(self.get_submodule(parent), name, None)
            self.model_args = {**self.model_args, "distilled": False}

    def _new_head(self, index: int, num_classes: int, bias: bool) -> nn.Module:
        """The classifier at this place of `parts.head`; families whose heads differ say which."""
        return self._new_classifier(num_classes, bias)

    def _new_classifier(self, num_classes: int, bias: bool) -> nn.Module:
        """Linear, or what the module that holds it makes."""
        owner = self.get_submodule(self._heads()[0].rpartition(".")[0])
        return getattr(owner, "make_layer", nn.Linear)(self.head_hidden_size, num_classes, bias)

    def _behead(self) -> None:
        """Remove the classifier, and the pool where "" is offered; a new one reads what the network now ends in."""
        try:
            self.reset_classifier(0, "")
        except UsageError:
            self.reset_classifier(0)
        pool = dict(self.named_modules()).get(self.parts.pool)  # none where attention pools
        self.head_hidden_size = self.num_features * getattr(pool, "width", 1)


class Distilled:
    """Mixed in before a network with two classifiers, the second of which learns from a teacher (arXiv:2012.12877)."""

    distilled_training: bool = False

    def set_distilled_training(self, enable: bool = True) -> None:
        """While training, return the two classifiers' logits apart."""
        self.distilled_training = enable

    def join_heads(self, first: Tensor, second: Tensor):
        """The mean of two logits, or both of them in distilled training."""
        if torch.jit.is_scripting():
            return (first + second) / 2
        else:  # scripting compiles what follows a return, but not this branch
            apart = self.distilled_training and self.training  # type: ignore[attr-defined]
            return (first, second) if apart else (first + second) / 2

    def forward_head(self, x: Tensor, pre_logits: bool = False):
        """`head` and `head_dist` of one pooled vector; a network whose classifiers differ writes its own."""
        x = self.head_drop(self.pool(x))  # type: ignore[attr-defined]
        if pre_logits:
            return x
        first = self.head(x)  # type: ignore[attr-defined]
        return first if self.head_dist is None else self.join_heads(first, self.head_dist(x))  # type: ignore[attr-defined]
