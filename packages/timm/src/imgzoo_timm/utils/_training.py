"""Meters, logs, seeds, summaries, checkpoints and processes of scripts."""

from __future__ import annotations

import csv
import glob
import logging
import logging.handlers
import os
import random
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed as dist

from imgzoo.loading.disk import replacing

from ._model import get_state_dict, unwrap_model
from ._reading import load_checkpoint_metadata

log = logging.getLogger(__name__)


class AverageMeter:
    """The last value and the mean of all, weighted by counts."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.val, self.avg, self.sum, self.count = 0.0, 0.0, 0.0, 0

    def update(self, val: float, n: int = 1) -> None:
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count if self.count else 0.0


def accuracy(output: torch.Tensor, target: torch.Tensor, topk: tuple[int, ...] = (1,)) -> list[torch.Tensor]:
    """Percent of samples whose label is among the k highest logits, for each k."""
    most = min(max(topk), output.shape[1])
    hits = output.topk(most, 1).indices.T.eq(target.reshape(1, -1))
    return [hits[: min(k, most)].reshape(-1).float().sum(0) * 100.0 / target.shape[0] for k in topk]


class FormatterNoInfo(logging.Formatter):
    """Messages of level INFO as they are."""

    def __init__(self, fmt: str = "%(levelname)s: %(message)s"):
        super().__init__(fmt)

    def format(self, record: logging.LogRecord) -> str:
        return str(record.getMessage()) if record.levelno == logging.INFO else super().format(record)


def setup_default_logging(default_level: int = logging.INFO, log_path: str = "") -> None:
    """Log to the terminal, and to a file that is rolled over."""
    console = logging.StreamHandler()
    console.setFormatter(FormatterNoInfo())
    root = logging.getLogger()
    root.addHandler(console)
    root.setLevel(default_level)
    if log_path:
        file = logging.handlers.RotatingFileHandler(log_path, maxBytes=2**22, backupCount=2)
        file.setFormatter(logging.Formatter("%(asctime)s - %(name)20s: [%(levelname)8s] - %(message)s"))
        root.addHandler(file)


def random_seed(seed: int = 42, rank: int = 0) -> None:
    torch.manual_seed(seed + rank)
    np.random.seed(seed + rank)
    random.seed(seed + rank)


def get_outdir(path: str, *paths: str, inc: bool = False) -> str:
    """The folder, made if missing; with `inc` one that was not there, by a number behind it."""
    folder = os.path.join(path, *paths)
    if inc and os.path.exists(folder):
        count = 1
        while os.path.exists(f"{folder}-{count}"):
            count += 1
        folder = f"{folder}-{count}"
    os.makedirs(folder, exist_ok=True)
    return folder


def update_summary(epoch: int, train_metrics: dict[str, Any], eval_metrics: dict[str, Any], filename: str,
                   lr: float | None = None, write_header: bool | None = None,
                   log_wandb: bool = False) -> None:  # fmt: skip
    """Append an epoch's numbers to a CSV file."""
    row: dict[str, Any] = OrderedDict(epoch=epoch)
    row.update((f"train_{key}", value) for key, value in train_metrics.items())
    row.update((f"eval_{key}", value) for key, value in (eval_metrics or {}).items())
    if lr is not None:
        row["lr"] = lr
    if log_wandb:
        raise ValueError("log to wandb from the script, or train with imgzoo's loggers")
    header = not os.path.exists(filename) if write_header is None else write_header
    with open(filename, mode="a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=row)
        if header:
            writer.writeheader()
        writer.writerow(row)


def trim_summary(filename: str, start_epoch: int) -> None:
    """Drop the rows of a summary from an epoch on, before a run goes on there."""
    if not os.path.exists(filename):
        return
    with open(filename, newline="") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    column = header.index("epoch") if "epoch" in header else 0
    with replacing(Path(filename)) as part, open(part, "w", newline="") as file:
        kept = [row for row in rows if row and int(row[column]) < start_epoch]
        csv.writer(file).writerows([header, *kept] if header else kept)


def decay_batch_step(batch_size: int, num_intra_steps: int = 2, no_odd: bool = False) -> int:
    """The next smaller batch: the next power of two in `num_intra_steps` steps."""
    if batch_size <= 1:
        return 0
    step = max((1 << ((batch_size - 1).bit_length() - 1)) // num_intra_steps, 1)
    smaller = (batch_size - 1) // step * step
    return smaller - 1 if no_odd and smaller % 2 else smaller


def check_batch_size_retry(error_str: str) -> bool:
    """Whether a smaller batch may help: not against illegal accesses and tensors of a wrong rank."""
    text = error_str.lower()
    return "required rank" not in text and "illegal" not in text


def set_jit_fuser(fuser: str) -> None:
    """Choose TorchScript's fuser: `te` (torch's default), `old`/`legacy`, or `nvfuser`, which torch has no more."""
    if fuser in ("nvfuser", "nvf"):
        raise ValueError("torch has no nvfuser any more: use 'te', or torch.compile")
    if fuser not in ("te", "old", "legacy"):
        raise ValueError(f"the fuser is te, old or legacy, not {fuser!r}")
    modern = fuser == "te"
    torch._C._jit_set_profiling_executor(modern)
    torch._C._jit_set_profiling_mode(modern)
    torch._C._jit_override_can_fuse_on_gpu(True)
    torch._C._jit_set_texpr_fuser_enabled(modern)


def set_jit_legacy() -> None:
    set_jit_fuser("legacy")


# processes


def reduce_tensor(tensor: torch.Tensor, n: int) -> torch.Tensor:
    """The sum over all processes, over n."""
    total = tensor.clone()
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    total /= n
    return total


def distribute_bn(model: torch.nn.Module, world_size: int, reduce: bool = False) -> None:
    """Running statistics as the mean over processes, or as the first has them."""
    for name, buffer in unwrap_model(model).named_buffers(recurse=True):
        if "running_mean" in name or "running_var" in name:
            if reduce:
                dist.all_reduce(buffer, op=dist.ReduceOp.SUM)
                buffer /= float(world_size)
            else:
                dist.broadcast(buffer, 0)


def world_info_from_env() -> tuple[int, int, int]:
    """Local rank, rank and number of processes."""

    def first(*names: str, default: int) -> int:
        return next((int(os.environ[name]) for name in names if name in os.environ), default)

    return (first("LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", default=0),
            first("RANK", "PMI_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", default=0),
            first("WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", default=1))  # fmt: skip


def is_distributed_env() -> bool:
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"]) > 1
    return int(os.environ.get("SLURM_NTASKS", 1)) > 1


def is_global_primary(args: Any) -> bool:
    return args.rank == 0


def is_local_primary(args: Any) -> bool:
    return args.local_rank == 0


def is_primary(args: Any, local: bool = False) -> bool:
    return is_local_primary(args) if local else is_global_primary(args)


def init_distributed_device(args: Any) -> torch.device:
    """Join the processes that the environment tells of; what was found is written on `args`."""
    found = init_distributed_device_so(getattr(args, "device", "cuda"), getattr(args, "dist_backend", None),
                                       getattr(args, "dist_url", None))  # fmt: skip
    args.device, args.world_size, args.rank = found["device"], found["world_size"], found["global_rank"]
    args.local_rank, args.distributed = found["local_rank"], found["distributed"]
    return torch.device(args.device)


def init_distributed_device_so(device: str = "cuda", dist_backend: str | None = None,
                               dist_url: str | None = None) -> dict[str, Any]:  # fmt: skip
    local, rank, world = 0, 0, 1
    kind = device.partition(":")[0]
    if kind == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("there is no CUDA device here: give --device cpu")
    together = is_distributed_env()
    if together:
        local, rank, world = world_info_from_env()
        backend = dist_backend or {"cuda": "nccl", "xpu": "ccl", "npu": "hccl"}.get(kind, "gloo")
        dist.init_process_group(backend=backend, init_method=dist_url or "env://")
        if kind == "cuda" and ":" not in device:
            device = f"cuda:{local}"
            torch.cuda.set_device(device)
    return dict(device=device, global_rank=rank, local_rank=local, world_size=world, distributed=together)


# checkpoints


class CheckpointSaver:
    """Keeps the best checkpoints of a run in `checkpoint_dir`, as `last`, `model_best` and by epoch."""

    def __init__(self, model: Any, optimizer: Any, args: Any = None, model_ema: Any = None, amp_scaler: Any = None,
                 checkpoint_prefix: str = "checkpoint", recovery_prefix: str = "recovery", checkpoint_dir: str = "",
                 recovery_dir: str = "", decreasing: bool = False, max_history: int = 10,
                 unwrap_fn: Callable[[Any], Any] = unwrap_model, task: Any = None):  # fmt: skip
        if max_history < 1:
            raise ValueError("max_history is at least 1")
        self.model, self.optimizer, self.args, self.model_ema = model, optimizer, args, model_ema
        self.amp_scaler, self.unwrap_fn, self.task = amp_scaler, unwrap_fn, task
        self.save_prefix, self.recovery_prefix, self.extension = checkpoint_prefix, recovery_prefix, ".pth.tar"
        self.checkpoint_dir, self.recovery_dir = checkpoint_dir, recovery_dir
        self.decreasing, self.max_history = decreasing, max_history
        self.checkpoint_files: list[tuple[str, float | None]] = []
        self.best_epoch: int | None = None
        self.best_metric: float | None = None
        self.curr_recovery_file = self.prev_recovery_file = ""

    def cmp(self, a: float, b: float) -> bool:
        return a < b if self.decreasing else a > b

    def _state(self, epoch: int, metric: float | None = None) -> dict[str, Any]:
        named = getattr(self.model, "default_cfg", None) or {}
        state = {"epoch": epoch, "arch": getattr(self.args, "model", None) or named.get("architecture", ""),
                 "optimizer": self.optimizer.state_dict(), "version": 2}  # fmt: skip
        if self.args is not None:
            state["args"] = {key: value for key, value in vars(self.args).items() if _plain(value)}
        if self.amp_scaler is not None:
            state[self.amp_scaler.state_dict_key] = self.amp_scaler.state_dict()
        if self.task is not None:
            state |= self.task.get_checkpoint_state(unwrap_fn=self.unwrap_fn)
            state |= self.task.get_checkpoint_state(ema=True, unwrap_fn=self.unwrap_fn)
        state.setdefault("state_dict", get_state_dict(self.model, self.unwrap_fn))
        if self.model_ema is not None:
            state["state_dict_ema"] = get_state_dict(self.model_ema, self.unwrap_fn)
        if metric is not None:
            state["metric"] = float(metric)
        return {**state, "saver": self.state_dict()}

    def _save(self, save_path: str, epoch: int, metric: float | None = None) -> None:
        with replacing(Path(save_path)) as part:
            torch.save(self._state(epoch, metric), part)

    def save_checkpoint(self, epoch: int, metric: float | None = None) -> tuple[float | None, int | None]:
        """Save an epoch, drop the worst of too many; the best metric and its epoch."""
        folder = Path(self.checkpoint_dir)
        last, path = folder / f"last{self.extension}", str(folder / f"{self.save_prefix}-{epoch}{self.extension}")
        before = [row for row in self.checkpoint_files if row[0] != path]
        rows = sorted([(path, metric), *before] if metric is None else [*before, (path, metric)],
                      key=lambda row: _order(row[1], self.decreasing))  # fmt: skip
        self.checkpoint_files = rows[: self.max_history]
        best = metric is not None and (self.best_metric is None or self.cmp(metric, self.best_metric))
        if best:
            self.best_epoch, self.best_metric = epoch, metric
        self._save(str(last), epoch, metric)
        if any(row[0] == path for row in self.checkpoint_files):
            shutil.copyfile(last, path)
        if best:
            shutil.copyfile(last, folder / f"model_best{self.extension}")
        for gone, _ in rows[self.max_history :]:
            Path(gone).unlink(missing_ok=True)
        return (None, None) if self.best_metric is None else (self.best_metric, self.best_epoch)

    def save_milestone(self, epoch: int) -> str:
        """Keep what was saved last under a name of its own, which nothing takes the place of."""
        path = os.path.join(self.checkpoint_dir, f"milestone-{epoch}{self.extension}")
        shutil.copyfile(os.path.join(self.checkpoint_dir, f"last{self.extension}"), path)
        return path

    def state_dict(self) -> dict[str, Any]:
        """What is kept so far, by the names of files: every checkpoint holds it."""
        files = [(os.path.basename(path), metric) for path, metric in self.checkpoint_files]
        return {"checkpoint_files": files, "best_epoch": self.best_epoch, "best_metric": self.best_metric}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; files that are gone are left out."""
        rows = [(os.path.join(self.checkpoint_dir, name), metric) for name, metric in state_dict["checkpoint_files"]]
        self.checkpoint_files = [row for row in rows if os.path.exists(row[0])]
        self.best_epoch, self.best_metric = state_dict["best_epoch"], state_dict["best_metric"]

    def load_state_dict_from_checkpoint(self, checkpoint_path: str) -> bool:
        """The same from a checkpoint; whether it holds it."""
        stored = load_checkpoint_metadata(checkpoint_path).get("saver")
        if stored is not None:
            self.load_state_dict(stored)
        return stored is not None

    def save_recovery(self, epoch: int, batch_idx: int = 0) -> None:
        """Save in the middle of an epoch; the one before the last is removed."""
        path = os.path.join(self.recovery_dir, f"{self.recovery_prefix}-{epoch}-{batch_idx}{self.extension}")
        self._save(path, epoch)
        if self.prev_recovery_file and os.path.exists(self.prev_recovery_file):
            os.remove(self.prev_recovery_file)
        self.prev_recovery_file, self.curr_recovery_file = self.curr_recovery_file, path

    def find_recovery(self) -> str:
        pattern = os.path.join(self.recovery_dir, self.recovery_prefix)
        files = sorted(glob.glob(f"{glob.escape(pattern)}*{self.extension}"), key=os.path.getmtime)
        return files[-1] if files else ""


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, dict))


def _order(metric: float | None, decreasing: bool) -> float:
    if metric is None:
        return float("inf")
    return metric if decreasing else -metric
