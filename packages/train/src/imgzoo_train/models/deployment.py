"""Make a model fast to run: fold, lower precision, give it to the best engine at hand; with a parity report."""

from __future__ import annotations

import copy
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from imgzoo.errors import ImgzooError, ImgzooWarning, UsageError
from imgzoo.memory import keep_memory
from imgzoo.options import plain_numbers
from imgzoo.text import first_line
from imgzoo_train.engines.base import DTYPES, Engine, ExportError, checked_count, torch_run
from imgzoo_train.engines.choosing import AUTO, ENGINES, engine_named, in_turns, reason
from imgzoo_train.engines.files import Scratch
from imgzoo_train.files.storage import StorageError, is_disk_full, replace_text

from .deployed import Deployed, facts_of
from .folding import fold_batch_norms, reparameterize
from .modes import evaluating
from .parity import checked_example, compare, example_images, named, precision_of, seconds

if TYPE_CHECKING:
    from .quantizing import Pictures

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
PATIENCE = 20.0
SLOW = 60.0
"""Seconds that an engine which compiles is expected to take."""


def folded(model: Any, example: torch.Tensor) -> tuple[Any, int, int]:
    """A copy for inference, how many batch norms were folded into it, and how many modules reparameterized."""
    network: Any = copy.deepcopy(model.eval()).requires_grad_(False)
    rewritten = reparameterize(network)
    return network, fold_batch_norms(network, example[:1]), rewritten


def deploy(
    model: Any,
    engine: str = "eager",
    *,
    precision: str = "fp32",
    example: torch.Tensor | None = None,
    batch: int | None = None,
    threads: int | None = None,
    calibrate: Any = None,
    tolerance: float | None = None,
    patience: float = PATIENCE,
    choice: str | os.PathLike[str] | None = None,
    channels_last: bool = True,
    step: Callable[[str], Any] = lambda text: None,
) -> Deployed:
    """A copy of `model` for inference, with its parity to the original as `deployed.parity`, its cost as `.report`.

    Batch norms are folded into the layer before them where that is proven to change nothing but rounding, and modules
    with a `reparameterize()` are rewritten. Then one of the engines runs it:

    - `eager`: torch, the network itself, channels-last unless told otherwise, on any device and for any image size
    - `inductor`: torch's compiler ahead of time; needs a C++ compiler to make, and runs on this kind of processor
    - `onnxruntime`, `openvino`: on a processor, with `pip install imgzoo-train[onnxruntime]` or `[openvino]`
    - `auto`: the fastest of those at hand, measured in turns on `example`; `report["why"]` tells. An engine that
      compiles for a minute is tried where `patience` (seconds) allows it. `choice` is a file that keeps the choice: it
      is followed where it fits the model, the example, threads and this machine, and made anew where not.

    `example` (B, C, H, W) is what parity and speed are measured on, random images by default; all engines but eager
    take images of its size, any number of them, or `batch` at once. They run on `threads`, by default torch's number.
    `precision` is `fp32`; `bf16` or `fp16`, used where they are measured to be faster with the same engine, else a
    warning says so; or `int8`, quantized on the images of `calibrate`: a source such as `folder:PATH`, images, or a
    `Calibration`. On a processor the process keeps its freed memory from then on (`imgzoo.memory.keep_memory`).

    Raises `UsageError` for bad arguments, and where the relative difference exceeds `tolerance` (1e-3; 0.1 in bf16 and
    fp16; for int8 the loss counts), `ExportError` where the engine cannot hold the network, `MissingDependencyError`
    where it is missing.
    """
    threads, batch = checked_count(threads, "threads"), checked_count(batch, "batch")
    if precision not in PRECISIONS:
        raise UsageError(f"there is no precision '{precision}'; use {', '.join(PRECISIONS)}")
    if engine != AUTO:
        engine_named(engine)
    if (calibrate is None) == (precision == "int8"):
        raise UsageError(
            "int8 needs images to calibrate on: name a source, as --calibrate does"
            if calibrate is None
            else f"only int8 is calibrated on images, {precision} is not: leave them out"
        )
    check_limit("tolerance", tolerance)
    check_limit("patience", patience)
    check_model(model, engine)
    keep_memory()
    with evaluating(model):
        example = example_images(model, batch or 4) if example is None else checked_example(model, example)
        plan = Plan(model, example, batch, threads or torch.get_num_threads(), tolerance, channels_last, step)
        if engine == AUTO:
            return _chosen(plan, precision, calibrate, patience, Path(choice) if choice is not None else None)
        if choice is not None:
            raise UsageError(f"a file of the choice goes with engine auto, not with {engine}: leave it out")
        return _made(plan, engine_named(engine), precision, calibrate)


def check_limit(name: str, value: Any) -> None:
    """Raise `UsageError` for a limit that is no number from 0."""
    value = plain_numbers(value)
    if value is not None and not (isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0):
        raise UsageError(f"{name} is a number from 0, not {value!r}; leave it out for the usual one")


def check_model(model: Any, engine: str) -> None:
    """Raise `UsageError` for what is no network of imgzoo, and for one in a precision that the engine has not."""
    if not isinstance(model, nn.Module) or isinstance(model, Deployed) or not hasattr(model, "pretrained_cfg"):
        raise UsageError(
            f"deploy takes a network that imgzoo.create_model has made, not {type(model).__name__}"
            + (": it is deployed already" if isinstance(model, Deployed) else "")
        )
    dtype = precision_of(model)
    if dtype != torch.float32 and engine != "eager":
        raise UsageError(f"engine {engine} takes a network of float32, not of {named(dtype)}: call model.float() first")


@dataclass
class Plan:
    """A model to be deployed, and how; what several engines begin from is made once."""

    model: Any
    example: torch.Tensor
    batch: int | None
    threads: int
    tolerance: float | None
    channels_last: bool
    step: Callable[[str], Any]

    def __post_init__(self) -> None:
        self.programs: dict[str, torch.export.ExportedProgram] = {}
        self.pictures: Pictures | None = None

    @cached_property
    def folded(self) -> tuple[nn.Module, int, int]:
        return folded(self.model, self.example)

    def network(self, precision: str) -> nn.Module:
        """The folded network as torch runs it."""
        network = copy.deepcopy(self.folded[0])
        if self.channels_last:
            network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        return LowPrecision(network, DTYPES[precision]) if precision in DTYPES else network

    def program(self, precision: str) -> torch.export.ExportedProgram:
        """The folded network traced for any number of images, or for `batch`."""
        if precision not in self.programs:
            self.step("tracing the network")
            network = copy.deepcopy(self.folded[0])
            network = LowPrecision(network, DTYPES[precision]) if precision in DTYPES else network
            self.programs[precision] = traced(network, self.example, self.batch)
        return self.programs[precision]


def traced(network: nn.Module, example: torch.Tensor, batch: int | None) -> torch.export.ExportedProgram:
    """A network as torch.export sees it, on the processor."""
    images = example[:1].expand(batch or 2, *example.shape[1:]).contiguous().cpu()
    free = None if batch else ({0: torch.export.Dim("batch", min=1)},)
    with held("torch.export", "use engine eager, or a fixed batch"), torch.no_grad():
        return torch.export.export(network.cpu(), (images,), dynamic_shapes=free)


@contextmanager
def held(what: str, advice: str) -> Iterator[None]:
    """Turn whatever a foreign library raises in this block into an `ExportError` of one sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ImgzooError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise StorageError(f"no space is left for the network ({error})") from error
        text = first_line(error)
        raise ExportError(f"{what} cannot hold this network ({text}): {advice}") from error


class LowPrecision(nn.Module):
    """A model in another dtype that takes and returns float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, images: torch.Tensor) -> Any:
        output = self.model(images.to(self.dtype))
        return [item.float() for item in output] if isinstance(output, (tuple, list)) else output.float()


def _made(plan: Plan, engine: Engine, precision: str, calibrate: Any) -> Deployed:
    """The plan carried out by one engine."""
    if precision not in engine.precisions:
        able = [each.name for each in ENGINES.values() if precision in each.precisions]
        raise UsageError(f"engine {engine.name} has no {precision}: use {' or '.join(able)}")
    engine.require(*needed(engine, precision))
    if plan.example.device.type != "cpu" and engine.name != "eager":
        raise UsageError(f"engine {engine.name} runs on a processor, the model is on {plan.example.device}: use eager")
    if precision == "int8":
        from .quantizing import quantized

        return quantized(plan, engine, calibrate)
    if precision in DTYPES and plan.example.device.type == "cpu":
        return _lowered(plan, engine, precision)
    return build(plan, engine, precision)


def needed(engine: Engine, precision: str) -> tuple[str, ...]:
    """Modules that writing a network takes."""
    return (*engine.writes_with, *(engine.quantizes_with if precision == "int8" else ()))


def _lowered(plan: Plan, engine: Engine, precision: str) -> Deployed:
    """The network in low precision, or in float32 where that was measured to be no slower."""
    low, exact = build(plan, engine, precision), build(plan, engine, "fp32")
    times = in_turns({each.record["precision"]: lambda each=each: each(plan.example) for each in (low, exact)})
    ratio = times[precision] / times["fp32"]
    if ratio < 1:
        low.report["why"] = f"{precision} takes {ratio:.2g} times as long as fp32"
        return low
    told = f"{precision} takes {ratio:.2g} times as long as fp32 with {engine.name} here: the model computes in fp32"
    warnings.warn(told, ImgzooWarning, stacklevel=4)
    exact.report["why"] = told
    return exact


def build(
    plan: Plan, engine: Engine, precision: str, program: Any = None, images: Sequence[torch.Tensor] | None = None
) -> Deployed:
    """The network written and loaded by an engine, compared with the model and timed.

    `program` and `images` are for `Engine.write`; the first is the plan's by default.
    """
    plan.step(f"{engine.name}: {precision}")
    before, start = resident(), time.perf_counter()
    network, folder = None, None
    if engine.name == "eager":
        network = plan.network(precision)
        run = torch_run(network, plan.threads)
    else:
        folder = Scratch()
        program = program or plan.program(precision if engine.casts else "fp32")
        with held(engine.name, "use another engine"):
            engine.write(program, folder.path, images)
            run = engine.load(folder.path, plan.threads, precision)
    deployed = Deployed(run, record_of(plan, engine, precision), folder, network)
    return judged(plan, deployed, time.perf_counter() - start, before)


def judged(plan: Plan, deployed: Deployed, taken: float, before: int) -> Deployed:
    """A deployed network with parity and report. Raises `UsageError` where it is too far from the model."""
    precision = deployed.record["precision"]
    _, folded, rewritten = plan.folded
    with held(deployed.engine, "use another engine"):
        parity = compare(plan.model, deployed, plan.example, folded, rewritten)
    limit = plan.tolerance if plan.tolerance is not None else LIMITS.get(precision, float("inf"))
    if not parity.relative_difference <= limit:
        raise UsageError(
            f"the model deployed with {deployed.engine} in {precision} differs by {parity.relative_difference:.2g} of "
            f"its largest output, more than {limit:g}: take another engine or precision, or raise tolerance"
        )
    deployed.record["parity"] = parity.as_dict()
    deployed.record["report"] |= {
        "compile_seconds": round(taken, 3),
        "ms": round(1e3 * seconds(deployed, plan.example, 2), 3),
        "memory_mb": round(max(0, resident() - before) / 2**20, 1),
    }
    return deployed


LIMITS = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}


def record_of(plan: Plan, engine: Engine, precision: str) -> dict[str, Any]:
    """What a deployed network is, as it is written into its file."""
    with torch.inference_mode():
        output = plan.model(plan.example[:1])
    size = tuple(plan.example.shape[1:])
    return {
        "engine": engine.name,
        "precision": precision,
        "facts": engine.facts(),
        "input_size": list(size),
        "batch": plan.batch,
        "dtype": named(plan.example.dtype),
        "several": isinstance(output, (tuple, list)),
        "model": facts_of(plan.model, size),
        "report": {
            "engine": engine.name,
            "precision": precision,
            "threads": plan.threads,
            "batch": len(plan.example),
        },
    }


def written(deployed: Deployed) -> Scratch:
    """The folder of a network that torch runs as it is, for a file."""
    folder, size = Scratch(), deployed.record["input_size"]
    network: Any = copy.deepcopy(deployed.network)
    program = traced(network, torch.zeros(1, *size, dtype=deployed.dtype), deployed.record["batch"])
    with held("torch.export", "use another engine"):
        engine_named("eager").write(program, folder.path)
    return folder


def _chosen(plan: Plan, precision: str, calibrate: Any, patience: float, choice: Path | None) -> Deployed:
    """The fastest of the engines at hand, or the one that `choice` remembers."""
    asked = {
        "model": plan.model.name,
        "precision": precision,
        "example": list(plan.example.shape),
        "fixed_batch": plan.batch,
        "threads": plan.threads,
        "machine": machine(),
    }
    if choice is not None and (kept := remembered(choice, asked)):
        deployed = _made(plan, engine_named(kept["engine"]), precision, calibrate)
        deployed.report["why"] = f"chosen before ({choice}): {kept['why']}"
        return deployed
    built, notes, failure, start = {}, {}, None, time.perf_counter()
    for name, engine in ENGINES.items():
        if precision not in engine.precisions or (plan.example.device.type != "cpu" and name != "eager"):
            continue
        if lacks := engine.missing(*needed(engine, precision)):
            notes[name] = lacks
        elif engine.slow and built and time.perf_counter() - start + SLOW > patience:
            notes[name] = f"not tried, compiling takes most of a minute and patience is {patience:g} s"
        else:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    built[name] = _made(plan, engine, precision, calibrate)
                if why := built[name].report.get("why"):
                    notes[name] = why
            except ImgzooError as error:
                failure, notes[name] = error, str(error)
    if not built:
        raise failure or UsageError(f"no engine at hand has {precision}: {'; '.join(notes.values())}")
    plan.step("comparing engines")
    times = in_turns({name: lambda each=each: each(plan.example) for name, each in built.items()})
    times = dict(sorted(times.items(), key=lambda row: row[1]))
    deployed = built[next(iter(times))]
    deployed.report["why"] = reason(times, notes, len(plan.example), plan.threads)
    deployed.report["engines_ms"] = {name: round(1e3 * taken, 3) for name, taken in times.items()}
    if choice is not None:
        kept = {**asked, "engine": deployed.engine, "why": deployed.report["why"]}
        replace_text(choice, json.dumps(kept, indent=1) + "\n")
    return deployed


def machine() -> dict[str, Any]:
    """What a choice depends on besides the model: processors, and the versions of engines."""
    at_hand = {name: engine.facts() for name, engine in ENGINES.items() if engine.missing() is None}
    return {"cores": os.cpu_count(), "engines": at_hand}


def remembered(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What a file says was chosen for the same question; None where it is not there, or answers another one.

    Raises `UsageError` for a file that holds something else, which must not be written over.
    """
    try:
        kept = json.loads(path.read_text("utf-8"))
        same = all(kept[key] == value for key, value in json.loads(json.dumps(asked)).items())
        return kept if same and kept["engine"] in ENGINES and isinstance(kept["why"], str) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no choice of an engine: name a file that is not there yet") from error


def resident() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
