"""Networks with their losses: what a script calls in place of the model, and saves beside its weights."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from imgzoo_timm.loss._factory import create_classification_loss
from imgzoo_timm.models._helpers import clean_state_dict, existing
from imgzoo_timm.utils._model import ModelEmaV3, unwrap_model
from imgzoo_timm.utils._reading import load_checkpoint_metadata

from ._evaluators import ClassificationEvaluator, MultiLabelClassificationEvaluator

log = logging.getLogger(__name__)
State = dict[str, Any]


class TrainingTask(nn.Module):
    """`task(input, target)` is a dict of `loss`, `output` and further numbers; `trainable_module` is what learns."""

    trainable_module: nn.Module | None
    trainable_module_ema: ModelEmaV3 | None

    def __init__(self, device: torch.device | None = None, dtype: torch.dtype | None = None, verbose: bool = True):
        super().__init__()
        self.device, self.dtype = torch.device(device or "cpu"), dtype or torch.get_default_dtype()
        self.verbose = verbose
        self.trainable_module = self.trainable_module_ema = None
        self.compiled_ema: list[Any] = []  # no module of the task: its weights are the average's

    def _apply(self, fn: Any, recurse: bool = True) -> TrainingTask:
        """Whatever moves or converts the modules, `device` and `dtype` tell where they are."""
        super()._apply(fn, recurse)
        first = next((each for each in self.parameters() if each.is_floating_point()), None)
        if first is not None:
            self.device, self.dtype = first.device, first.dtype
        return self

    def told(self, text: str) -> None:
        if self.verbose:
            log.info(text)

    def prepare_distributed(self, device_ids: list[Any] | None = None, **ddp_kwargs: Any) -> TrainingTask:
        """Let what learns add up its gradients over the processes."""
        if self.trainable_module is not None:
            self.trainable_module = DistributedDataParallel(self.trainable_module, device_ids=device_ids, **ddp_kwargs)
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        if self.trainable_module is not None:
            self.trainable_module = torch.compile(self.trainable_module, backend=backend, mode=mode, **compile_kwargs)  # type: ignore[assignment]
        return self.trainable_module

    def get_trainable_module(self, ema: bool = False) -> nn.Module | None:
        return self.trainable_module_ema if ema else self.trainable_module

    def setup_ema(self, decay: float = 0.9999, use_warmup: bool = False, device: torch.device | None = None,
                  **kwargs: Any) -> nn.Module:  # fmt: skip
        """Begin to average what learns; `update_ema` follows each step."""
        if self.trainable_module is None:
            raise ValueError("there is no trainable_module to average")
        self.trainable_module_ema = ModelEmaV3(unwrap_model(self.trainable_module), decay, use_warmup=use_warmup,
                                               device=device, **kwargs)  # fmt: skip
        return self.trainable_module_ema

    def has_ema(self) -> bool:
        return self.trainable_module_ema is not None

    def compile_ema(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs: Any) -> Any:
        """The average's network, compiled, to evaluate."""
        average = self.get_eval_model(ema=True)
        if average is None:
            return None
        self.compiled_ema = [torch.compile(average, backend=backend, mode=mode, **compile_kwargs)]
        return self.compiled_ema[0]

    def update_ema(self, step: int | None = None) -> None:
        if self.trainable_module_ema is not None and self.trainable_module is not None:
            self.trainable_module_ema.update(self.trainable_module, step=step)

    def get_clip_parameters(self, exclude_head: bool = False) -> Iterator[nn.Parameter]:
        """Parameters whose gradients are clipped: all that learn, or all but the last two."""
        module = self.get_eval_model()
        if module is None:
            return iter(())
        found = list(module.parameters())
        return iter(found[:-2] if exclude_head else found)

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """The network that is evaluated and saved, of `module`, of the average or of what learns."""
        if module is None and ema and self.compiled_ema:
            return self.compiled_ema[0]
        return self.evaluated(module if module is not None else self.get_trainable_module(ema))

    def evaluated(self, module: nn.Module | None) -> nn.Module | None:
        """What of a module that learns is evaluated."""
        return module

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> State:
        """What a checkpoint keeps beside the network's weights."""
        return {}

    def load_task_state(self, state: State | None, strict: bool = True, module: nn.Module | None = None,
                        ema: bool = False) -> None:  # fmt: skip
        """Take that back."""

    def get_checkpoint_state(self, ema: bool = False, unwrap_fn: Any = unwrap_model) -> State:
        """The entries of a checkpoint; none where there is nothing to save."""
        model, end = self.get_eval_model(ema=ema), "_ema" * ema
        if model is None:
            return {}
        state, kept = {f"state_dict{end}": unwrap_fn(model).state_dict()}, self.get_task_state(ema=ema)
        return {**state, f"task_state{end}": kept} if kept else state

    def load_checkpoint_state(self, state_dict: State, task_state: State | None = None, ema: bool = False,
                              strict: bool = True) -> None:  # fmt: skip
        model = unwrap_model(self.get_eval_model(ema=ema))
        if model is None:
            raise ValueError("there is no average to load: call setup_ema first" if ema else "there is no network yet")
        model.load_state_dict(clean_state_dict(state_dict), strict=strict)
        self.load_task_state(task_state, strict=strict, ema=ema)

    def no_sync(self) -> Any:
        """A step whose gradients are not added up over the processes."""
        module = self.trainable_module
        return module.no_sync() if isinstance(module, DistributedDataParallel) else contextlib.nullcontext()

    def create_evaluator(self, **kwargs: Any) -> ClassificationEvaluator:
        return ClassificationEvaluator(self.device, **kwargs)

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError


def resolve_classification_loss(criterion: Any, device: torch.device, multi_label: bool = False,
                                criterion_kwargs: State | None = None) -> Any:  # fmt: skip
    """The criterion that is given, or that of `create_classification_loss`."""
    if criterion is not None and criterion_kwargs:
        raise ValueError(f"give a criterion or criterion_kwargs, not both: {sorted(criterion_kwargs)}")
    if criterion is None:
        criterion = create_classification_loss(multi_label=multi_label, **(criterion_kwargs or {}))
    return criterion.to(device) if isinstance(criterion, nn.Module) else criterion


class ClassificationTask(TrainingTask):
    """A network and a criterion of its output."""

    multi_label = False

    def __init__(self, model: nn.Module, criterion: Any = None, criterion_kwargs: State | None = None,
                 device: torch.device | None = None, dtype: torch.dtype | None = None,
                 verbose: bool = True):  # fmt: skip
        super().__init__(device, dtype, verbose)
        self.trainable_module = model
        self.criterion = resolve_classification_loss(criterion, self.device, self.multi_label, criterion_kwargs)
        self.told(f"{type(self).__name__}: {self.criterion}")

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        assert self.trainable_module is not None
        output = self.trainable_module(input)
        return {"loss": self.criterion(output, target), "output": output}


class MultiLabelClassificationTask(ClassificationTask):
    """The same with several labels an image: targets are (B, classes)."""

    multi_label = True

    def __init__(self, model: nn.Module, criterion: Any = None, criterion_kwargs: State | None = None,
                 threshold: float = 0.5, device: torch.device | None = None, dtype: torch.dtype | None = None,
                 verbose: bool = True):  # fmt: skip
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold of a label is a probability between 0 and 1, not {threshold}")
        super().__init__(model, criterion, criterion_kwargs, device, dtype, verbose)
        self.threshold = threshold

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        if target.ndim != 2 or not target.is_floating_point():
            raise ValueError("targets of several labels are dense floating-point vectors (batch, classes)")
        return super().forward(input, target)

    def create_evaluator(self, **kwargs: Any) -> ClassificationEvaluator:
        return MultiLabelClassificationEvaluator(self.device, **{"threshold": self.threshold, **kwargs})


def resume_task_checkpoint(task: TrainingTask, checkpoint_path: str, optimizer: Any = None, loss_scaler: Any = None,
                           log_info: bool = True, weights_only: bool = True) -> int | None:  # fmt: skip
    """Go on from a checkpoint of `CheckpointSaver`; the epoch to begin with, if it is stored.

    Nothing in the file is run, whatever `weights_only` says.
    """
    stored: State = load_checkpoint_metadata(existing(checkpoint_path))
    if "state_dict" not in stored:
        stored = {"state_dict": stored["model"], **stored} if "model" in stored else {"state_dict": stored}
    task.load_checkpoint_state(stored["state_dict"], stored.get("task_state"))
    if optimizer is not None and "optimizer" in stored:
        optimizer.load_state_dict(stored["optimizer"])
    if loss_scaler is not None and loss_scaler.state_dict_key in stored:
        loss_scaler.load_state_dict(stored[loss_scaler.state_dict_key])
    if log_info:
        task.told(f"loaded {checkpoint_path}")
    epoch: Any = stored.get("epoch")
    version: Any = stored.get("version", 0)
    return None if epoch is None else epoch + (version > 1)


def load_task_ema_checkpoint(task: TrainingTask, checkpoint_path: str, weights_only: bool = True) -> None:
    """The stored average into the task's; a checkpoint without one gives its weights."""
    stored = load_checkpoint_metadata(existing(checkpoint_path))
    for end in ("_ema", ""):
        if f"state_dict{end}" in stored:
            task.load_checkpoint_state(stored[f"state_dict{end}"], stored.get(f"task_state{end}"), ema=True)
            return
    task.load_checkpoint_state(stored, ema=True)
