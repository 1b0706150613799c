"""Distillation: the student's loss plus imitation of a teacher's logits, features or distillation token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import CapabilityError
from imgzoo_train.config.settings import Config
from imgzoo_train.loop.state import State
from imgzoo_train.models.answers import Answer, align, answer_of


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


def distilled(config: Config, loss: Callable[..., torch.Tensor], state: State, sources: Any) -> Any:
    """A loss function `(model, batch) -> scalar`: (1 - weight) * own loss + weight * imitation of the teacher."""
    from imgzoo_train.models.opening import open_model

    part = config.distill
    model = open_model(part.teacher, part.teacher_pretrained)
    columns = None
    if part.kind != "feature":
        wanted = Answer(config.loss.task, sources.classes, tuple(sources.names))
        found = align(answer_of(model), wanted, f"the teacher {part.teacher}", config.data.source)
        columns = found.columns if found.places is None else found.places
    student: Any = state.plain
    teacher = Teacher(model, student.pretrained_cfg, model.pretrained_cfg, columns).to(state.device)
    imitate = {"": _logit, "logit": _logit, "feature": _feature, "token": _token}[part.kind](
        config, student, teacher, state
    )

    def run(model: nn.Module, batch: Any) -> torch.Tensor:
        own, copied = imitate(model, batch)
        return (1 - part.weight) * loss(own, batch.targets) + part.weight * copied

    return run


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


def _logit(config: Config, student: Any, teacher: Teacher, state: State) -> Any:
    part, task = config.distill, config.loss.task

    def imitate(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        output: Any = model(state.precision.inputs(batch.images))
        output = output[0] if isinstance(output, (tuple, list)) else output
        return output, imitation(output, teacher.logits(batch.images), part.temperature, part.hard, task)

    return imitate


def _token(config: Config, student: Any, teacher: Teacher, state: State) -> Any:
    """The second head learns from the teacher, the first from the labels (DeiT, arXiv:2012.12877)."""
    if not hasattr(student, "set_distilled_training"):
        raise CapabilityError(
            "--distill token needs a model with a distillation token, such as deit_tiny_distilled_patch16_224"
        )
    student.set_distilled_training(True)
    part, task = config.distill, config.loss.task

    def imitate(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        output: Any = model(state.precision.inputs(batch.images))
        own, other = output if isinstance(output, (tuple, list)) else (output, output)
        return own, imitation(other, teacher.logits(batch.images), part.temperature, part.hard, task)

    return imitate


class FeatureHead(nn.Module):
    """Maps the student's features to the teacher's width."""

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.map = nn.Linear(student, teacher)

    def forward(self, features: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """1 - cosine similarity, mean over the batch."""
        return (1 - F.cosine_similarity(self.map(features.float()), wanted, dim=1)).mean()


def _feature(config: Config, student: Any, teacher: Teacher, state: State) -> Any:
    """Pooled features imitate the teacher's through a learned linear map, which joins the optimizer."""
    wide: Any = teacher.model
    head = FeatureHead(student.head_hidden_size, wide.head_hidden_size).to(state.device)
    learning_rate = config.optim.lr
    state.optimizer.add_param_group({"params": list(head.parameters()), "lr": learning_rate, "weight_decay": 0.0})

    def imitate(model: nn.Module, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if model is not student:
            raise CapabilityError("--distill feature runs in a single process without --compile")
        features = student.forward_features(state.precision.inputs(batch.images))
        pooled = student.forward_head(features, pre_logits=True)
        wanted = teacher.features(batch.images)
        return student.forward_head(features), head(pooled, wanted)

    return imitate
