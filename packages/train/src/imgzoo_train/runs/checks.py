"""What can be known before the first batch: settings that contradict each other, names nobody brings, an output."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from imgzoo.errors import UsageError
from imgzoo.registry import registry
from imgzoo.text import counted
from imgzoo_train.config.flags import COMMAND_LINE
from imgzoo_train.config.limits import check_threads, checked_value
from imgzoo_train.config.settings import Config, DistillSection
from imgzoo_train.loop.losses import DEFAULT_LOSS, options_of
from imgzoo_train.loop.weighting import parse_weights
from imgzoo_train.models.opening import advising
from imgzoo_train.scores.metrics import METRICS

from . import idle, resuming
from .loggers import Loggers


def check_settings(config: Config, *, resume: bool = False, output: bool = True) -> None:
    """Look at everything that needs neither data nor model; raises typed errors naming the option.

    With `output` the folder too: on one rank only, since another may already have begun it.
    """
    from imgzoo_train.scores.metrics import score_name

    run = config.run
    registry("trainers").resolve(run.trainer or "standard")
    Loggers.check(run.loggers)
    registry("optimizers").resolve(config.optim.name)
    if config.loss.class_weights:
        parse_weights(config.loss.class_weights)
    registry("schedulers").resolve(config.schedule.name)
    check_loss_options(config.loss.name or DEFAULT_LOSS[config.loss.task], config)
    measured = METRICS[config.loss.task].names
    if score_name(config) not in measured:
        raise UsageError(f"--metric {run.metric} is not measured; there are {', '.join(measured)}")
    if not config.distill.teacher and config.distill != DistillSection():
        raise UsageError("distillation needs a teacher: add --teacher MODEL, or leave the --distill options out")
    for flag, epochs in (("--warmup-epochs", config.schedule.warmup_epochs), ("--swa-epochs", run.swa_epochs)):
        if epochs and epochs >= run.epochs + (flag == "--swa-epochs"):
            raise UsageError(
                f"{flag} {epochs:g} is longer than the run of --epochs {run.epochs}: give less, or 0 for none"
            )
    if len(set(run.ema)) < len(run.ema):
        raise UsageError(f"--ema {','.join(map(str, run.ema))} names a decay twice: give each once")
    idle.check_idle(config)
    check_threads(run.threads)
    if config.data.sequence:
        check_sequence(config)
    check_augmentations(config.data.augment)
    if resume:
        resuming.check(Path(run.output), config)
    if output:
        check_output(Path(run.output), resume)


def mixing_smooths(config: Config) -> bool:
    """Whether labels are smoothed where they are mixed, not by the loss; numbers to predict are not."""
    return bool(config.data.mixup or config.data.cutmix) and config.loss.task != "regression"


def check_loss_options(name: str, config: Config) -> None:
    """Raise `UsageError` for smoothing or class weights that the loss does not know."""
    taken = options_of(name)
    positives = parse_weights(config.loss.class_weights)[0] == "positives"
    for flag, given, option in (
        ("--smoothing", config.loss.smoothing and not mixing_smooths(config), "smoothing"),
        ("--class-weights", config.loss.class_weights, "pos_weight" if positives else "weight"),
    ):
        if given and taken is not None and option not in taken:
            raise UsageError(f"the loss {name} knows no {flag}: leave it out, or choose another --loss")


def check_sequence(config: Config) -> None:
    """Raise `UsageError` for a setting that images as sequences of patches contradict."""
    splits = config.data.augment.get("splits", 1) > 1
    for flag, given in (
        ("--sizes", config.data.sizes),
        ("--teacher", config.distill.teacher),
        ("--torchscript", config.run.torchscript),
        ("augmentation splits", splits),
    ):
        if given:
            raise UsageError(f"--sequence and {flag} do not go together: leave one of them out")


def check_augmentations(given: Mapping[str, Any]) -> None:
    """Raise `UsageError` for an augmentation whose value is of another type; what they may be, the transform knows."""
    from imgzoo_data.augmentations import AUGMENTATIONS

    for name in given.keys() & AUGMENTATIONS.keys():
        kind, value = AUGMENTATIONS[name][0], given[name]
        kind = Literal[kind] if isinstance(kind, tuple) else kind
        value = [value] if kind == list[float] and isinstance(value, (int, float)) else value
        checked_value(value, kind, f"data.augment.{name}", COMMAND_LINE)


def check_output(folder: Path, resume: bool) -> None:
    """Raise `UsageError` for a folder that holds a run already, or that cannot be written; leaves nothing there."""
    from imgzoo_train.runs.folder import RunFolder

    if not resume:
        RunFolder(folder).refuse_existing()
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        raise UsageError(f"cannot write to {folder} ({error.strerror}); choose another --output") from error


def worth_saying(config: Config, samples: int, ranks: int = 1) -> list[str]:
    """What a run of so many training samples does that one may not expect, and the option that changes it."""
    whole = config.data.batch_size * ranks
    left = samples % whole if samples > whole else 0
    said = []
    if samples < whole and not config.data.last_batch:
        said.append(
            f"repeated: {counted(samples, 'image')} fill a batch of {whole}, some of them several times; "
            "--last-batch takes each once"
        )
    if left and not config.data.last_batch:
        said.append(
            f"left out: {counted(left, 'image')} an epoch, the last batch that is not full; --last-batch takes them"
        )
    if config.schedule.warmup_epochs and not config.schedule.options.get("warmup_start"):
        said.append(
            "warm-up: the first update has learning rate 0; "
            f"--set schedule.options.warmup_start={config.optim.lr / 100:g} begins above"
        )
    return said


@contextmanager
def explained(config: Config) -> Iterator[None]:
    """Say what the user can do about errors of the loader, and torch's own of a training step."""
    try:
        with advising("--max-bad replaces such samples by others"):
            yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        size = config.data.batch_size
        alone = "the last batch, of one image," if size > 1 and config.data.last_batch else f"--batch-size {size}"
        advice = "leave --last-batch out, or use another" if alone.startswith("the") else "use a larger"
        raise UsageError(
            f"batch norm cannot train on one value a channel, which {alone} at this size leaves: {advice} --batch-size "
            "or a larger --input-size, or --freeze norm"
        ) from error
    except RuntimeError as error:
        found = re.search(r"(\S+) does not have a deterministic implementation", str(error))
        if found is None:
            raise
        raise UsageError(
            f"--deterministic: torch has no {found[1]} that gives the same bits twice; leave it out"
        ) from error
