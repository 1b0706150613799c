"""Distillation: the student's loss plus imitation of a teacher's logits, features or distillation token."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import CapabilityError, UsageError
from imgzoo.options import Range, check_kinds, check_ranges
from imgzoo_train.config.settings import Config
from imgzoo_train.models.answers import Answer, align, answer_of

from .fit import LossFn
from .state import State


class Teacher(nn.Module):
    """A fixed model that sees the student's images, normalized as it was trained to see them.

    `columns` are its outputs for the student's classes; None for all of them.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self, model: nn.Module, student_cfg: Any, teacher_cfg: Any, columns: torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.columns = columns
        self.model = model.eval().requires_grad_(False)
        mean, std = (torch.tensor(student_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
        own_mean, own_std = (torch.tensor(teacher_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    def train(self, mode: bool = True) -> Teacher:
        """A teacher always evaluates."""
        return super().train(False)

    def images(self, images: torch.Tensor) -> torch.Tensor:
        """The student's images (B, C, H, W) under the teacher's normalization."""
        return images.float() * self.scale + self.shift

    @torch.no_grad()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        output = self.model(self.images(images))
        output = (output[0] if isinstance(output, (tuple, list)) else output).float()
        return output if self.columns is None else output.index_select(1, self.columns.to(output.device))

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, D): what the teacher's classifier sees."""
        model: Any = self.model
        return model.forward_head(model.forward_features(self.images(images)), pre_logits=True).float()


def distilled(config: Config, loss: Callable[..., torch.Tensor], state: State, sources: Any) -> LossFn:
    """The loss function of a run with a teacher."""
    from imgzoo_train.models.opening import open_model, warn_of_chance

    part, task = config.distill, config.loss.task
    model = open_model(part.teacher, part.teacher_pretrained)
    warn_of_chance(model, f"the teacher {part.teacher}")
    columns = None
    if part.kind != "feature":
        wanted = Answer(task, sources.classes, tuple(sources.names))
        found = align(answer_of(model), wanted, f"the teacher {part.teacher}", config.data.source)
        columns = found.columns if found.places is None else found.places
    student: Any = state.plain
    teacher = Teacher(model, student.pretrained_cfg, model.pretrained_cfg, columns).to(state.device)
    kind = part.kind or "logit"
    return distillation(
        loss, student, teacher, kind=kind, weight=part.weight, temperature=part.temperature, hard=part.hard, task=task,
        optimizer=state.optimizer, lr=config.optim.lr, inputs=state.precision.inputs,
    )  # fmt: skip


def distillation(
    loss: Callable[..., torch.Tensor],
    student: Any,
    teacher: Teacher,
    *,
    kind: Literal["logit", "feature", "token"] = "logit",
    weight: float = 0.5,
    temperature: float = 1.0,
    hard: bool = False,
    task: str = "classification",
    optimizer: Any = None,
    lr: float = 1e-3,
    inputs: Callable[[torch.Tensor], torch.Tensor] = lambda images: images,
) -> LossFn:
    """A loss function `(model, batch) -> scalar`: `(1 - weight) * loss + weight * imitation of the teacher`.

    A batch has `images` and `targets`; `inputs` brings images to the model's precision.

    Args:
        student: the plain model, for what its class can do; the loss function is called with what trains it.
        kind: what is imitated: logits, pooled features through a map that joins `optimizer` with the rate `lr`, or
            logits by the second head of a network with a distillation token.
        temperature: softens both sides' logits; `hard` learns the teacher's decision instead.

    Raises:
        CapabilityError: the student has no distillation token.
        UsageError: `weight` or `temperature` is out of range, or features have no optimizer for their map.
    """
    what = "distillation"
    check_kinds(what, distillation, {"kind": kind, "weight": weight, "temperature": temperature, "hard": hard})
    check_ranges(what, {"weight": weight, "temperature": temperature}, RANGES)
    imitate = {"logit": _logit, "feature": _feature, "token": _token}[kind](
        student, teacher, partial(imitation, temperature=temperature, hard=hard, task=task), inputs, optimizer, lr
    )

    def run(model: nn.Module, batch: Any) -> torch.Tensor:
        own, copied = imitate(model, batch)
        return (1 - weight) * loss(own, batch.targets) + weight * copied

    return run


RANGES = {"weight": Range(0, 1), "temperature": Range(0, above=True)}
Copy = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Outputs of the student and of the teacher -> how far apart they are."""


def imitation(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float, hard: bool, task: str = "classification"
) -> torch.Tensor:
    """KL divergence of softened logits times temperature squared (arXiv:1503.02531), or the teacher's decision.

    Several labels an image are a yes or no each; numbers are imitated by their squared error.
    """
    if task == "regression":
        return F.mse_loss(student.float(), teacher)
    if task == "multilabel":
        wanted = (teacher > 0).float() if hard else (teacher / temperature).sigmoid()
        scale = 1.0 if hard else temperature
        return F.binary_cross_entropy_with_logits(student.float() / scale, wanted) * scale**2
    if hard:
        return F.cross_entropy(student.float(), teacher.argmax(1))
    soft, own = (F.log_softmax(logits.float() / temperature, 1) for logits in (teacher, student))
    return F.kl_div(own, soft, reduction="batchmean", log_target=True) * temperature**2


def _logit(student: Any, teacher: Teacher, copy: Copy, inputs: Any, optimizer: Any, lr: float) -> Any:
    def imitate(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        output: Any = model(inputs(batch.images))
        output = output[0] if isinstance(output, (tuple, list)) else output
        return output, copy(output, teacher.logits(batch.images))

    return imitate


def _token(student: Any, teacher: Teacher, copy: Copy, inputs: Any, optimizer: Any, lr: float) -> Any:
    """The second head learns from the teacher, the first from the labels (DeiT, arXiv:2012.12877)."""
    if not hasattr(student, "set_distilled_training"):
        raise CapabilityError(
            "--distill token needs a model with a distillation token, such as deit_tiny_distilled_patch16_224"
        )
    student.set_distilled_training(True)

    def imitate(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        output: Any = model(inputs(batch.images))
        own, other = output if isinstance(output, (tuple, list)) else (output, output)
        return own, copy(other, teacher.logits(batch.images))

    return imitate


class FeatureHead(nn.Module):
    """Maps the student's features to the teacher's width."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.map = nn.Linear(student, teacher)

    def forward(self, features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """1 - cosine similarity, mean over the batch."""
        return (1 - F.cosine_similarity(self.map(features.float()), wanted, dim=1)).mean()


def _feature(student: Any, teacher: Teacher, copy: Copy, inputs: Any, optimizer: Any, lr: float) -> Any:
    """Pooled features imitate the teacher's through a learned linear map, which joins the optimizer."""
    if optimizer is None:
        raise UsageError("features are imitated through a map that learns: give the optimizer that it joins")
    wide: Any = teacher.model
    head = FeatureHead(student.head_hidden_size, wide.head_hidden_size).to(teacher.scale.device)
    optimizer.add_param_group({"params": list(head.parameters()), "lr": lr, "weight_decay": 0.0})

    def imitate(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if model is not student:
            raise CapabilityError("--distill feature runs in a single process without --compile")
        features = student.forward_features(inputs(batch.images))
        pooled = student.forward_head(features, pre_logits=True)
        wanted = teacher.features(batch.images)
        return student.forward_head(features), head(pooled, wanted)

    return imitate
