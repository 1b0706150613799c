"""Tasks that learn from a teacher's logits, features or decisions, over `imgzoo_train`'s."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_timm.models._factory import create_model
from imgzoo_timm.models._manipulate import group_with_matcher
from imgzoo_timm.utils._model import unwrap_model
from imgzoo_train.loop.distillation import imitation

from ._tasks import ClassificationTask, State


def statistics(model: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation (1, C, 1, 1) of the images that a network was trained on."""
    told = getattr(model, "pretrained_cfg", None) or {}
    mean, std = (told.get(name) or fallback for name, fallback in (("mean", (0.485, 0.456, 0.406)),
                                                                   ("std", (0.229, 0.224, 0.225))))  # fmt: skip
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


class DistillationTeacher(nn.Module):
    """A fixed network, by its name (with weights) or as it is."""

    mean_kd: Tensor
    std_kd: Tensor

    def __init__(self, model_name_or_module: str | nn.Module, num_classes: int | None = None, in_chans: int = 3,
                 pretrained_path: str | None = None, pretrained_cfg_overlay: State | None = None,
                 device: torch.device | None = None, dtype: torch.dtype | None = None):  # fmt: skip
        super().__init__()
        if isinstance(model_name_or_module, str):
            overlay = dict(pretrained_cfg_overlay or {}, **({"file": pretrained_path} if pretrained_path else {}))
            model: Any = create_model(model_name_or_module, pretrained=True, num_classes=num_classes,
                                      in_chans=in_chans, pretrained_cfg_overlay=overlay or None)  # fmt: skip
        elif isinstance(model_name_or_module, nn.Module):
            model = model_name_or_module
        else:
            raise TypeError(f"the teacher is a name or a network, not {type(model_name_or_module).__name__}")
        self.model = model.to(device=device, dtype=dtype).eval()
        for name, value in zip(("mean_kd", "std_kd"), statistics(unwrap_model(model))):
            self.register_buffer(name, value.to(device, dtype), persistent=False)

    def compile(self, backend: str = "inductor", mode: str | None = None, compile_model: bool = True,
                compile_features: bool = False, **compile_kwargs: Any) -> DistillationTeacher:  # fmt: skip
        if compile_model:
            self.model = torch.compile(self.model, backend=backend, mode=mode, **compile_kwargs)  # type: ignore[assignment]
        if compile_features:
            self.features = torch.compile(self.features, backend=backend, mode=mode, **compile_kwargs)  # type: ignore[method-assign]
        return self

    def features(self, input: Tensor) -> Tensor:
        """(B, D): what the classifier sees."""
        model: Any = unwrap_model(self.model)
        return model.forward_head(model.forward_features(input), pre_logits=True)

    def forward(self, input: Tensor, return_features: bool = False) -> Tensor:
        return self.features(input) if return_features else self.model(input)

    def normalize_input(self, input: Tensor, student_mean: Tensor | None = None,
                        student_std: Tensor | None = None) -> Tensor:  # fmt: skip
        """A student's images under the teacher's normalization."""
        if student_mean is None or student_std is None:
            return input
        return (input * student_std + student_mean - self.mean_kd) / self.std_kd


class Distilling(ClassificationTask):
    """What the tasks share: the teacher, and the weights of its part and of the labels'."""

    student_mean: Tensor
    student_std: Tensor

    def __init__(self, student: nn.Module, teacher: Any, criterion: Any, criterion_kwargs: State | None,
                 path: str | None, overlay: State | None, distill: float | None, task: float | None,
                 device: torch.device | None, dtype: torch.dtype | None, verbose: bool):  # fmt: skip
        super().__init__(student, criterion, criterion_kwargs, device, dtype, verbose)
        if not isinstance(teacher, DistillationTeacher):
            like: Any = unwrap_model(student)
            teacher = DistillationTeacher(teacher, like.num_classes, getattr(like, "in_chans", 3), path, overlay,
                                          device, dtype)  # fmt: skip
        self.teacher = teacher
        if distill is None:
            distill = 1.0 if task is None else 1.0 - task
        self.distill_loss_weight, self.task_loss_weight = distill, 1.0 if task is None else task
        for name, value in zip(("student_mean", "student_std"), statistics(unwrap_model(student))):
            self.register_buffer(name, value.to(device, dtype), persistent=False)

    def train(self, mode: bool = True) -> Distilling:
        """A teacher always evaluates."""
        super().train(mode)
        self.teacher.eval()
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        self.teacher.compile(backend, mode, **compile_kwargs)
        return super().compile(backend, mode, **compile_kwargs)

    @torch.no_grad()
    def taught(self, input: Tensor, return_features: bool = False) -> Tensor:
        input = self.teacher.normalize_input(input, self.student_mean, self.student_std)
        return self.teacher(input, return_features=return_features)

    def added(self, task: Tensor, copied: Tensor, output: Tensor, name: str = "kd_loss") -> dict[str, Tensor]:
        loss = self.task_loss_weight * task + self.distill_loss_weight * copied
        return {"loss": loss, "output": output, "task_loss": task, name: copied}


class LogitDistillationTask(Distilling):
    """The teacher's logits by their divergence (arXiv:1503.02531)."""

    def __init__(self, student_model: nn.Module, teacher_model: Any, criterion: nn.Module | None = None,
                 criterion_kwargs: State | None = None, teacher_pretrained_path: str | None = None,
                 teacher_pretrained_cfg_overlay: State | None = None, loss_type: str = "kl",
                 distill_loss_weight: float | None = None, task_loss_weight: float | None = None,
                 temperature: float = 1.0, device: torch.device | None = None, dtype: torch.dtype | None = None,
                 verbose: bool = True):  # fmt: skip
        if loss_type != "kl":
            raise ValueError(f"loss_type is kl, not {loss_type!r}")
        super().__init__(student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
                         teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype,
                         verbose)  # fmt: skip
        self.loss_type, self.temperature = loss_type, temperature

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        own = super().forward(input, target)
        copied = imitation(own["output"], self.taught(input).float(), self.temperature, hard=False)
        return self.added(own["loss"], copied, own["output"])


class FeatureDistillationTrainableModule(nn.Module):
    """A student beside the map from its features to the teacher's width."""

    def __init__(self, student_model: nn.Module, projection: nn.Module | None = None):
        super().__init__()
        self.student, self.projection = student_model, projection

    def no_weight_decay(self) -> set[str]:
        own: Any = getattr(self.student, "no_weight_decay", set)
        return {f"student.{name}" for name in own()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], Any]:
        """The student's groups of layers by names here; the projection is of the last."""
        student: Any = self.student
        groups = group_with_matcher(student.named_parameters(), student.group_matcher(coarse), reverse=True)
        last = max(groups.values())
        return lambda name: groups[name.removeprefix("student.")] if name.startswith("student.") else last

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and features in the teacher's width."""
        student: Any = self.student
        maps = student.forward_features(input)
        features = student.forward_head(maps, pre_logits=True)
        return student.forward_head(maps), features if self.projection is None else self.projection(features)


class FeatureDistillationTask(Distilling):
    """The teacher's pooled features by their squared error."""

    def __init__(self, student_model: nn.Module, teacher_model: Any, criterion: nn.Module | None = None,
                 criterion_kwargs: State | None = None, teacher_pretrained_path: str | None = None,
                 teacher_pretrained_cfg_overlay: State | None = None, distill_loss_weight: float | None = None,
                 task_loss_weight: float | None = None, student_feature_dim: int | None = None,
                 teacher_feature_dim: int | None = None, device: torch.device | None = None,
                 dtype: torch.dtype | None = None, verbose: bool = True):  # fmt: skip
        super().__init__(student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
                         teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype,
                         verbose)  # fmt: skip
        own = student_feature_dim or self._detect_feature_dim(student_model)
        wide = teacher_feature_dim or self._detect_feature_dim(self.teacher.model)
        projection = None if own == wide else nn.Linear(own, wide, device=device, dtype=dtype)
        del self.trainable_module  # its weights come last
        self.trainable_module = FeatureDistillationTrainableModule(student_model, projection)

    @staticmethod
    def _detect_feature_dim(model: Any) -> int:
        found = unwrap_model(model)
        for name in ("head_hidden_size", "num_features"):
            if hasattr(found, name):
                return getattr(found, name)
        raise ValueError("say student_feature_dim and teacher_feature_dim: the network does not tell its width")

    def evaluated(self, module: nn.Module | None) -> nn.Module | None:
        both: Any = unwrap_model(module)
        return both.student if isinstance(both, FeatureDistillationTrainableModule) else both

    def projected(self, module: nn.Module | None, ema: bool) -> nn.Module | None:
        both: Any = unwrap_model(module if module is not None else self.get_trainable_module(ema))
        return getattr(both, "projection", None)

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> State:
        projection = self.projected(module, ema)
        return {} if projection is None else {"projection": projection.state_dict()}

    def load_task_state(self, state: State | None, strict: bool = True, module: nn.Module | None = None,
                        ema: bool = False) -> None:  # fmt: skip
        projection = self.projected(module, ema)
        if projection is not None and state and "projection" in state:
            projection.load_state_dict(state["projection"], strict=strict)

    def get_clip_parameters(self, exclude_head: bool = False) -> Iterator[nn.Parameter]:
        yield from super().get_clip_parameters(exclude_head)
        projection = self.projected(None, False)
        if projection is not None:
            yield from projection.parameters()

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        assert self.trainable_module is not None
        output, features = self.trainable_module(input)
        copied = F.mse_loss(features, self.taught(input, return_features=True))
        return self.added(self.criterion(output, target), copied, output)


class TokenDistillationTask(Distilling):
    """A second head learns from the teacher, the first from the labels (DeiT, arXiv:2012.12877)."""

    def __init__(self, student_model: nn.Module, teacher_model: Any, criterion: nn.Module | None = None,
                 criterion_kwargs: State | None = None, teacher_pretrained_path: str | None = None,
                 teacher_pretrained_cfg_overlay: State | None = None, distill_type: str = "soft",
                 distill_loss_weight: float | None = None, task_loss_weight: float | None = None,
                 temperature: float = 1.0, device: torch.device | None = None, dtype: torch.dtype | None = None,
                 verbose: bool = True):  # fmt: skip
        if distill_type not in ("soft", "hard"):
            raise ValueError(f"distill_type is soft or hard, not {distill_type!r}")
        switch = getattr(unwrap_model(student_model), "set_distilled_training", None)
        if switch is None:
            raise ValueError(f"{type(student_model).__name__} has no distillation token, "
                             "as deit_tiny_distilled_patch16_224 has")  # fmt: skip
        super().__init__(student_model, teacher_model, criterion, criterion_kwargs, teacher_pretrained_path,
                         teacher_pretrained_cfg_overlay, distill_loss_weight, task_loss_weight, device, dtype,
                         verbose)  # fmt: skip
        switch(True)
        self.distill_type, self.temperature = distill_type, temperature

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        assert self.trainable_module is not None
        found = self.trainable_module(input)
        own, second = found if isinstance(found, (tuple, list)) else (found, found)  # one in evaluation
        copied = imitation(second, self.taught(input).float(), self.temperature, self.distill_type == "hard")
        return self.added(self.criterion(own, target), copied, own, "distill_loss")
