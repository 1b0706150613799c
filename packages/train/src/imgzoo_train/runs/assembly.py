"""From a configuration to what `fit` needs, in one documented order.

Source, model and weights, adapters and freezing, device and layout, batch-norm conversion, precision of the weights,
sharding, optimizer, averages, compile, data parallel; then loaders, loss and schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from imgzoo.errors import DataError, UsageError
from imgzoo.options import parameters_of
from imgzoo.registry import registry
from imgzoo.text import counted, first_line
from imgzoo_train.config.settings import Config, size_of
from imgzoo_train.loop.fit import LossFn
from imgzoo_train.loop.losses import DEFAULT_LOSS, TASKS_OF, create_loss
from imgzoo_train.loop.state import State
from imgzoo_train.loop.weighting import class_weights, parse_weights, read_class_counts, read_class_weights
from imgzoo_train.models.answers import KINDS, Alignment, Answer, align, answer_of, answer_of_data, listed
from imgzoo_train.models.opening import heads_of, weights_argument
from imgzoo_train.models.sequences import begin, patch_of, size_schedule
from imgzoo_train.ranks.world import World
from imgzoo_train.techniques.averages import Average
from imgzoo_train.techniques.precision import create_precision

from .checks import mixing_smooths


@dataclass
class Sources:
    """Training and validation data, what their classes are, and how those of the validation data lie among them."""

    train: Any
    validation: Any
    classes: int
    names: list[str]
    align: Alignment
    splits: Any = None
    """How the data was found, in words: `splits.lines()`."""


def open_sources(config: Config) -> Sources:
    """Open the data of a run; raises `UsageError` where it does not fit the task."""
    from imgzoo_data import open_splits
    from imgzoo_data.sources.base import StreamSource

    if not config.data.source:
        raise UsageError("no data given: add --data digits: or --data folder:PATH")
    task = config.loss.task
    part = config.data
    options = {**part.options, **({"range": part.range} if part.range else {})}
    splits = open_splits(
        part.source,
        part.val_source,
        task=task,
        val_split=part.val_split,
        val_share=part.val_share,
        allow_shared=part.allow_shared,
        folds=part.folds,
        fold=part.fold,
        options=options,
    )
    train, validation = splits.train, splits.validation
    for source in (train, validation):
        if isinstance(source, StreamSource):
            raise UsageError(
                f"{source.name} is a stream; a run seeks in its data, to go on where it ended: leave streaming= out"
            )
    answer, where = answer_of_data(train, task), part.val_source or part.source
    if task == "regression" and answer.count == 1:
        answer = replace(answer, names=())  # a single number needs no name, and other data may call it otherwise
    found = align(answer, answer_of_data(validation, task), "training", f"validation of {where}")
    asked = config.model.num_classes
    if asked not in (None, answer.count):
        raise UsageError(f"--num-classes {asked} contradicts {part.source}, which has {answer.count}; leave it out")
    return Sources(train, validation, answer.count, list(answer.names), found, splits)


def build_model(config: Config, classes: int, names: list[str]) -> nn.Module:
    """The network with its weights, adapted to the classes of the data."""
    from imgzoo import create_model

    part = config.model
    if not part.name:
        raise UsageError("no model given: name one, as `imgzoo list` prints it")
    torch.manual_seed(config.run.seed)
    model = create_model(
        part.name,
        pretrained=weights_argument(part.pretrained),
        num_classes=classes,
        in_chans=part.in_chans,
        img_size=size_of(part.img_size),
        global_pool=part.global_pool,
        drop_rate=part.drop_rate,
        drop_path_rate=part.drop_path_rate,
        **part.options,
    )
    model.changes = line_up_head(model, Answer(config.loss.task, classes, tuple(names)))
    if part.grad_checkpointing:
        model.set_grad_checkpointing()
    return begin(model, config.data.sequence)


@torch.no_grad()
def line_up_head(model: Any, wanted: Answer) -> list[str]:
    """Let the model answer what is wanted: a classifier of other classes is begun anew, one in another order sorted.

    Returns what was changed of loaded weights on their way, in sentences, a classifier that was not kept among them.
    """
    report, known = getattr(model, "load_report", None), answer_of(model)
    kept = report is not None and not any(name.startswith(heads_of(model)) for name in report.initialized)
    if kept:
        unsaid = known.task == "classification" and not known.names
        try:
            found = align(replace(known, task=wanted.task) if unsaid else known, wanted, "the pretrained classifier")
        except UsageError:
            model.reset_classifier(wanted.count)
            kept = False
        else:
            places = found.columns if found.places is None else found.places
            for head in model._heads() if places is not None else ():
                for parameter in model.get_submodule(head).parameters():
                    parameter.copy_(parameter[places])
    model.task, model.class_names = wanted.task, list(wanted.names) or None
    if report is None:
        return []
    heads = tuple(f"{head}: " for head in model._heads())
    said = [f"weights: {note}" for note in report.adapted if not note.startswith(heads)]
    return said if kept else [*said, _begun_anew(report, known.task, wanted)]


def _begun_anew(report: Any, task: str, wanted: Answer) -> str:
    """Why the classifier is not that of the weights, which answer with `task`."""
    if report.classes is None:
        return "the classifier begins anew: the weights bring none"
    theirs = _outputs(Answer(task, report.classes, tuple(report.class_names)), task != wanted.task)
    return (
        f"the classifier begins anew: the weights know {theirs}, this run has {_outputs(wanted, task != wanted.task)}; "
        "it is kept where both have the same"
    )


def _outputs(answer: Answer, tell: bool) -> str:
    """How many classes or values there are, their names, and of what kind of label where that is to `tell`."""
    count = counted(answer.count, "value" if answer.task == "regression" else "class")
    return count + (f" ({listed(answer.names)})" if answer.names else "") + (f", {KINDS[answer.task]}" if tell else "")


def data_config(config: Config, model: nn.Module, sources: Sources) -> Any:
    """How images are prepared for the model; it is written on the model, so that it is saved with it.

    Raises `UsageError` for a size that the model cannot take.
    """
    from imgzoo_data import resolve_data_config
    from imgzoo_train.models.sizes import check_size

    part = config.data
    found = resolve_data_config(
        model,
        img_size=size_of(part.input_size or config.model.img_size),
        interpolation=part.interpolation,
        crop_pct=part.crop_pct,
        mean=part.mean,
        std=part.std,
        range=sources.train.range,
    )
    own: Any = getattr(model, "pretrained_cfg", {})
    sizes = [(size, size) for size in part.sizes] + [found.input_size[1:]]
    check_size(model, *(size for size in sizes if size != tuple(own.get("input_size", ())[1:])))
    check_channels(sources.train, found, part.max_pixels)
    model.pretrained_cfg = {**own, **found.to_dict()}  # type: ignore[assignment]
    return found


def check_channels(source: Any, config: Any, max_pixels: int | None) -> None:
    """Raise `UsageError` where images have other channels than the network takes: the first that fits tells, and up to
    8 are tried.
    """
    from imgzoo_data import create_transform
    from imgzoo_data.decode import ChannelError

    transform, wrong = create_transform(config, training=False, max_pixels=max_pixels), None
    for row in sorted({round(place * (len(source) - 1) / 7) for place in range(8)}):
        try:
            transform(source[row].data)
        except ChannelError as error:
            wrong = wrong or error
        except (DataError, OSError):  # what cannot be read is found when it is used
            continue
        else:
            return
    if wrong is not None:
        raise UsageError(f"{source.name}: {wrong}; --in-chans {wrong.have} builds the network for them")


@dataclass
class Loaders:
    """The streams of a run on this rank, and how many updates an epoch has."""

    train: Any
    validation: Any
    eval_steps: int
    updates: int


def build_loaders(
    config: Config, model: Any, sources: Sources, transform: Any, world: World, quarantine: Any = None
) -> Loaders:
    """Training and validation loaders for images prepared as `transform` (a data config) says."""
    from imgzoo_data import Mixer, create_loader, create_transform

    part, classes = config.data, sources.classes
    if part.repeats > part.batch_size * world.size:
        raise UsageError(f"--repeats {part.repeats} is more than the {part.batch_size * world.size} images of a batch")
    shared = {
        "seed": config.run.seed,
        "workers": part.workers,
        "rank": world.rank,
        "world": world.size,
        "device": world.device,
        "channels_last": config.run.channels_last,
    }
    mixer = None
    if part.mixup or part.cutmix:
        mixer = Mixer(
            classes,
            part.mixup,
            part.cutmix,
            prob=part.mix_prob,
            smoothing=config.loss.smoothing if mixing_smooths(config) else 0.0,
            multi_label=config.loss.task == "multilabel",
            off_epoch=part.mix_off_epoch or 0,
        )
    patch = patch_of(model) if part.sequence else 0
    sequence = (patch, max(part.sequence)) if part.sequence else None
    views = {**part.augment, **({"sequence": sequence} if sequence else {})}
    schedule, steps = size_schedule(config, patch, len(sources.train), world)
    train = create_loader(
        sources.train,
        create_transform(transform, training=True, max_pixels=part.max_pixels, **views),
        part.batch_size,
        training=True,
        mixer=mixer,
        schedule=schedule,
        steps_per_epoch=steps,
        repeats=part.repeats,
        sampler=part.sampler,
        drop_last=False if part.last_batch else None,
        bad="replace" if part.max_bad else "raise",
        budget=part.max_bad or 1,
        quarantine=quarantine if part.max_bad else None,
        **shared,
    )
    size = part.val_batch_size or part.batch_size
    plain = create_transform(transform, training=False, max_pixels=part.max_pixels, sequence=sequence)
    validation = create_loader(
        sources.validation,
        plain,
        size,
        training=False,
        bad="skip" if part.max_bad_val else "raise",
        budget=part.max_bad_val or 1,
        **shared,
    )
    largest_share = math.ceil(len(sources.validation) / world.size)
    return Loaders(
        train, validation, math.ceil(largest_share / size), max(1, math.ceil(len(train) / config.optim.accumulate))
    )


def build_state(config: Config, model: nn.Module, world: World, updates: int) -> State:
    """Apply every technique to the model, in the documented order."""
    from imgzoo_train.ranks import sharding
    from imgzoo_train.techniques import adapters, batch_norm, scripting, small_maps

    run = config.run
    if config.model.lora:
        adapters.add_lora(model, config.model.lora)
    if config.model.unfreeze_epoch is None:
        adapters.freeze(model, config.model.freeze)
    model = model.to(world.device)
    sharded = run.strategy == "fsdp2" and world.size > 1
    if run.channels_last and not sharded:  # FSDP2 shards contiguous weights only
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if run.sync_bn and world.size > 1:
        batch_norm.sync_batch_norm(model, world)
    if config.model.split_bn > 1:
        batch_norm.split_batch_norm(model, config.model.split_bn)
    precision = create_precision(run.precision, world.device)
    model = precision.prepare(model)
    if precision.low and world.device.type == "cpu":
        small_maps.protect(model)
    if sharded:
        sharding.shard(model, world)

    optimizer = build_optimizer(config, model, world)
    if config.model.unfreeze_epoch is not None:
        adapters.freeze(model, config.model.freeze)
    averages = build_averages(config, model, updates)
    called: Any = model
    if run.torchscript:
        called = scripting.scripted(model, run.torchscript, world.device, precision)
    if run.compile:
        called = torch.compile(called)
    if world.size > 1 and not sharded:
        called = sharding.replicate(called, world)
    return State(
        called,
        optimizer,
        model,
        world,
        precision,
        averages,
        run.seed,
        sharded=sharded,
    )


def build_optimizer(config: Config, model: nn.Module, world: World) -> torch.optim.Optimizer:
    """The optimizer over the model's parameter groups; with `zero1` its state is dealt out over ranks."""
    from imgzoo_optim import create_optimizer
    from imgzoo_train.ranks import sharding

    part = config.optim
    common: dict[str, Any] = {"lr": part.lr, "weight_decay": part.weight_decay, "momentum": part.momentum}
    for name in common.keys() & part.options.keys():
        raise UsageError(f"optim.options.{name} is the setting optim.{name}: use --{name.replace('_', '-')}")
    layered: dict[str, Any] = {"layer_decay": part.layer_decay} if part.layer_decay is not None else {}
    if config.run.strategy != "zero1" or world.size == 1:
        return create_optimizer(part.name, model, **common, **layered, **part.options)
    groups = create_optimizer("sgd", model, lr=part.lr, weight_decay=part.weight_decay, **layered).param_groups
    rows = [
        {key: group[key] for key in ("params", "weight_decay", "lr_scale", "lr") if key in group} for group in groups
    ]
    return sharding.zero_optimizer(lambda params: create_optimizer(part.name, params, **common, **part.options), rows)


def build_averages(config: Config, model: nn.Module, updates: int) -> dict[str, Average]:
    """Weight averages by name: `ema`, or `ema-<decay>` where there are several, and `swa`."""
    run = config.run
    kept: dict[str, Any] = {"device": torch.device("cpu") if run.ema_cpu else None, "precision": run.ema_precision}
    several = len(run.ema) > 1
    averages = {
        f"ema-{decay:g}" if several else "ema": Average(model, decay, warmup=run.ema_warmup, **kept)
        for decay in run.ema
    }
    if run.swa_epochs:
        start = max(0, run.epochs - run.swa_epochs) * updates
        averages["swa"] = Average(model, None, start=start, every=updates, **kept)
    return averages


def build_loss(config: Config, sources: Sources, state: State) -> LossFn:
    """The loss as a function of model and batch: the task's, or the one given, with a teacher's where there is one."""
    part = config.loss
    name = part.name or DEFAULT_LOSS[part.task]
    options = dict(part.options)
    if part.smoothing and not mixing_smooths(config):
        options.setdefault("smoothing", part.smoothing)
    taken, _ = parameters_of(registry("losses").resolve(name).load())
    if part.class_weights:
        mode, path = parse_weights(part.class_weights)
        if mode:
            own = class_counts(sources), len(sources.train)
            counts, total = read_class_counts(path, sources.names) if path else own
            weights = class_weights(counts, mode, total=total)
        else:
            weights = read_class_weights(part.class_weights, sources.names)
        option = "pos_weight" if mode == "positives" else "weight"
        if option not in taken:
            raise UsageError(
                f"--class-weights {part.class_weights} does not go with --loss {name}, which has no {option}"
            )
        options.setdefault(option, weights.tolist())
    if "counts" in taken:
        options.setdefault("counts", class_counts(sources).tolist())
    if "total" in taken:
        options.setdefault("total", len(sources.train))
    loss = create_loss(name, **options).to(state.device)
    check_loss(
        name, loss, part.task, sources.classes, state.device, 12 * max(1, int(config.data.augment.get("splits", 1)))
    )
    if config.distill.teacher:
        from imgzoo_train.loop.distillation import distilled

        return distilled(config, loss, state, sources)
    return supervised(loss, state)


def check_loss(name: str, loss: nn.Module, task: str, classes: int, device: torch.device, rows: int) -> None:
    """Raise `UsageError` for a loss that cannot take the targets of a task, tried on a batch of so many rows."""
    tasks = TASKS_OF.get(getattr(loss, "of", ""), tuple(KINDS))
    if task not in tasks:
        raise UsageError(
            f"--loss {name} does not go with --task {task}: it is of {' or '.join(KINDS[each] for each in tasks)}, and "
            f"the data has {KINDS[task]}; --loss {DEFAULT_LOSS[task]} is of those"
        )
    kind = torch.long if task == "classification" else torch.float32
    shape = (rows, classes) if task == "multilabel" or (task == "regression" and classes > 1) else (rows,)
    try:
        value = loss(torch.zeros(rows, classes, device=device), torch.zeros(shape, dtype=kind, device=device))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = first_line(error)
        raise UsageError(f"--loss {name} does not go with --task {task} ({reason})") from error
    if value.ndim:
        raise UsageError(f"--loss {name} gives {value.numel()} numbers a batch: training needs one, a mean or a sum")


def supervised(loss: Callable[[Any, torch.Tensor], torch.Tensor], state: State | None = None) -> LossFn:
    """`loss(model(images), targets)` of a batch with those two; images in the precision of `state`, or as they are.

    Auxiliary heads share the loss with weight 0.4 (arXiv:1512.00567).
    """

    def run(model: nn.Module, batch: Any) -> torch.Tensor:
        output = model(state.precision.inputs(batch.images) if state else batch.images)
        if not isinstance(output, (tuple, list)):
            return loss(output, batch.targets)
        first, *others = output
        return loss(first, batch.targets) + 0.4 * sum(loss(other, batch.targets) for other in others)

    return run


def class_counts(sources: Sources) -> torch.Tensor:
    """Number of training samples of each class."""
    targets = torch.as_tensor(sources.train.targets(), device="cpu")
    return targets.sum(0) if targets.ndim > 1 else torch.bincount(targets, minlength=sources.classes)


def build_clip(config: Config, state: State) -> Callable[[Any], Any] | None:
    """The limit of gradients over parameters; None without one."""
    from imgzoo_optim import clip_gradients

    part = config.optim
    if part.clip is None:
        return None
    limit, whole = part.clip, state.plain if part.clip_mode == "agc" and not state.sharded else None
    return lambda parameters: clip_gradients(whole or parameters, limit, mode=part.clip_mode)


def build_schedule(config: Config, state: State, updates: int) -> Any:
    """The learning rate over the whole run; times in `schedule.options` are counted in updates, or in epochs."""
    from imgzoo_optim import create_scheduler

    part, epochs = config.schedule, max(1, config.run.epochs)
    if part.per == "epoch":
        times: dict[str, Any] = {"total": epochs, "warmup": min(epochs - 1, round(part.warmup_epochs))}
        times |= {"per": "epoch", "updates_per_epoch": updates}
    else:
        total = epochs * updates
        times = {"total": total, "warmup": max(0, min(total - 1, round(part.warmup_epochs * updates)))}
    return create_scheduler(part.name, state.optimizer, **times, **part.options)
