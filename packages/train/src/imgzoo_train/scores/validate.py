"""Scores of models on data: names, folders, run folders; subsets of ImageNet; a batch that does not fit is halved."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import UsageError
from imgzoo.loading.source import means_folder
from imgzoo.memory import is_short
from imgzoo_train.models.answers import KINDS, Alignment, Answer, align, answer_of, answer_of_data
from imgzoo_train.models.deployed import Deployed, parameter_count
from imgzoo_train.models.opening import model_folder, open_ready, open_split
from imgzoo_train.models.sequences import asked
from imgzoo_train.models.sizes import check_size
from imgzoo_train.models.views import TestPool, Viewed, parse_views
from imgzoo_train.ranks.world import World
from imgzoo_train.techniques.precision import create_precision
from imgzoo_train.terminal.progress import Watched

from .evaluation import Evaluation, evaluate
from .rows import Samples

Row = dict[str, Any]


@dataclass
class Settings:
    """How models are scored."""

    source: str
    split: str = "validation"
    task: str | None = None
    """What the model must answer; None takes what it says."""
    pretrained: str = "true"
    engine: str | None = None
    """What runs the models; None for torch as in training."""
    batch_size: int = 64
    workers: int = 0
    img_size: int | None = None
    crop_pct: float | None = None
    precision: str = "fp32"
    channels_last: bool = False
    test_pool: bool = False
    threshold: float | None = None
    """Probability above which a label holds, where several may; None is one half."""
    tta: str | None = None
    """Views whose answers are averaged, as `flip,scales`; `scores.views.VIEWS` lists them."""
    sequence: int | None = None
    """Most patches of an image at its own shape; 0 for images of one size, None for what the model was trained with."""
    range: str | None = None
    """Values of black and white of images of more than 8 bits; None takes the source's, or the model's."""
    per_class: bool = False
    confusion: bool = False
    rows: bool = False
    """Keep a row for every image."""
    subset: str = ""
    max_pixels: int | None = None
    max_bad: float = 0.0
    """Share, or from 1 number, of samples that may be left out because they cannot be read."""


def find_models(texts: Sequence[str]) -> list[str]:
    """Model names, patterns of names, saved folders, run folders, folders of those, and files that list any of them."""
    from imgzoo.registry import registry

    found: list[str] = []
    for text in texts:
        path = Path(text)
        if path.is_file() and path.suffix in (".txt", ".csv"):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += find_models([line.split(",")[0].strip() for line in lines if line.strip()])
        elif path.is_dir() and means_folder(text):
            found += _folders(path)
        elif any(mark in text for mark in "*?["):
            names = fnmatch.filter(registry("models").names(), text)
            if not names:
                raise UsageError(f"no model matches '{text}'; see imgzoo list")
            found += names
        else:
            found.append(text)
    return list(dict.fromkeys(found))


def _folders(path: Path) -> list[str]:
    try:
        model_folder(str(path))
        return [str(path)]
    except UsageError:
        inside = sorted(p.parent for p in path.glob("*/config.json"))
        inside += sorted(p.parent.parent for p in path.glob("*/best/config.json"))
        if not inside:
            raise
        return [str(folder) for folder in inside]


def validate(
    text: str, settings: Settings, world: World | None = None, say: Callable[[str], Any] | None = None
) -> tuple[Row, Evaluation]:
    """Score one model; returns its row and the evaluation. `say` is told, line by line, how the data was found.

    Raises `UsageError` where data and model do not go together, `DataError` where the data contradicts itself.
    """
    world, views = world or World(), parse_views(settings.tta)
    model = open_ready(
        text,
        settings.pretrained,
        settings.engine,
        precision=settings.precision,
        img_size=None if settings.test_pool else settings.img_size,
        batch=min(settings.batch_size, 8),
        task=settings.task,
    )
    deployed, count = isinstance(model, Deployed), parameter_count(model)
    if deployed:
        refuse_settled(text, settings)
    answer = _answer(model, text, settings)
    if settings.img_size is not None:
        check_size(model, settings.img_size)
    sequence = asked(model, settings.sequence)
    if sequence:
        given = {"--test-pool": settings.test_pool, "--tta": views, "--img-size": settings.img_size}
        for flag in (flag for flag, value in given.items() if value):
            raise UsageError(f"{flag} is about images of one size, {text} takes patches: add --sequence 0")
    model = _joined(model, settings, views, text).to(world.device).eval()
    if settings.channels_last:
        model = model.to(memory_format=torch.channels_last)
    precision = create_precision("fp32" if deployed else settings.precision, world.device)
    precision.prepare(model)
    data = _open(settings, subset_of(settings, answer), model, text, say if world.main else None)
    size = settings.batch_size
    start = time.perf_counter()
    while True:
        try:
            found = _score(model, data, settings, size, world, precision, text, sequence)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_short(error) or size == 1 or world.size > 1:
                raise
            size //= 2
    seconds = time.perf_counter() - start
    if say is not None and world.main and (absent := found.scores.absent):
        say(f"{absent} of {data.align.classes} classes have no image here: means over classes leave them out")
    row: Row = {"model": text, **found.metrics, "img_size": _size(model, settings), "batch_size": size}
    return {**row, "params_m": round(count / 1e6, 3), "seconds": round(seconds, 2)}, found


def _answer(model: Any, text: str, settings: Settings) -> Answer:
    """What the model answers, where the settings go with it."""
    answer = answer_of(model)
    if settings.threshold is not None and answer.task != "multilabel":
        raise UsageError(f"--threshold is about several labels an image, {text} answers with {KINDS[answer.task]}")
    for flag, given, needed in (
        ("--per-class", settings.per_class and answer.task == "regression", "classes"),
        ("--confusion", settings.confusion and answer.task != "classification", KINDS["classification"]),
    ):
        if given:
            raise UsageError(f"{flag} is about {needed}, {text} answers with {KINDS[answer.task]}: leave it out")
    return answer


def refuse_settled(text: str, settings: Settings) -> None:
    """Raise `UsageError` for settings that deploying has settled."""
    given = {
        "--channels-last": settings.channels_last,
        "--precision": settings.precision != "fp32" and settings.engine is None,
        "--sequence": settings.sequence,
    }
    for flag in (flag for flag, value in given.items() if value):
        raise UsageError(f"{text} is deployed, which settles layout, precision and size: leave {flag} out")


def _joined(model: Any, settings: Settings, views: Sequence[str], text: str) -> Any:
    """The model, or what joins its answers to windows and views of an image."""
    if settings.test_pool:
        size, own = _size(model, settings), min(model.pretrained_cfg["input_size"][1:])
        if size <= own:
            raise UsageError(f"--test-pool does nothing at {size} pixels, {text} was trained on {own}: add --img-size")
        model = TestPool(model)
    return Viewed(model, views) if views else model


def _size(model: Any, settings: Settings) -> int:
    from imgzoo_data import resolve_data_config

    return resolve_data_config(model, img_size=settings.img_size, use_test_size=settings.img_size is None).input_size[1]


@dataclass
class Data:
    """What a model is scored on, what it answers, and how the two lie to each other."""

    source: Any
    answer: Answer
    align: Alignment


def _open(settings: Settings, answer: Answer, model: Any, name: str, say: Callable[[str], Any] | None) -> Data:
    """The data, described, in the model's range of values where it has none of its own."""
    from imgzoo_data import resolve_data_config, settle
    from imgzoo_data.sources.base import StreamSource

    given: dict[str, Any] = {"range": settings.range} if settings.range else {}
    source = open_split(settings.source, settings.split, answer.task, **given)
    if isinstance(source, StreamSource):
        _check_stream(source, settings)
    lined_up = align(answer, answer_of_data(source, answer.task, "" if settings.task else name), name, settings.source)
    for line in settle(source, resolve_data_config(model).range).lines():
        if say is not None:
            say(line)
    return Data(source, answer, lined_up)


def _check_stream(source: Any, settings: Settings) -> None:
    """Raise `UsageError` for a stream that does not know how long it is, and for what needs to know its samples."""
    if settings.rows or settings.subset == "real":
        raise UsageError(f"{settings.source} is a stream, whose images have no names: leave streaming= out of it")
    try:
        len(source)
    except TypeError as error:
        raise UsageError(
            f"{settings.source} is a stream of unknown length: add num_samples= to it, or leave streaming= out"
        ) from error


def _score(
    model: Any, data: Data, settings: Settings, size: int, world: World, precision: Any, name: str, sequence: Any
) -> Evaluation:
    from imgzoo_data import create_loader, create_transform, resolve_data_config

    source, answer, lined_up = data.source, data.answer, data.align
    config = resolve_data_config(
        model,
        img_size=settings.img_size,
        crop_pct=1.0 if settings.test_pool else settings.crop_pct,
        use_test_size=settings.img_size is None,
    )
    loader = create_loader(
        source,
        create_transform(config, training=False, max_pixels=settings.max_pixels, sequence=sequence),
        size,
        training=False,
        bad="skip" if settings.max_bad else "raise",
        budget=settings.max_bad or 1,
        workers=settings.workers,
        rank=world.rank,
        world=world.size,
        device=world.device,
        channels_last=settings.channels_last,
    )
    names = answer.labels
    if lined_up.columns is not None and answer.task != "classification":
        names = [names[place] for place in lined_up.columns.tolist()]
    threshold = 0.5 if settings.threshold is None else settings.threshold
    real = Real(source, world) if settings.subset == "real" else None
    samples = Samples(answer, names, source.key, threshold) if settings.rows else None
    if samples is not None and world.size > 1:
        raise UsageError("a row for every image is written by a single rank: run it without launch")
    found = evaluate(
        model,
        Watched(loader, len(loader), f"validate {name}") if world.main else loader,
        classes=lined_up.classes,
        task=answer.task,
        world=world,
        precision=precision,
        align=lined_up,
        observe=_both(real, samples),
        threshold=threshold,
    )
    found.labels, found.rows = names, samples.rows() if samples is not None else []
    if real is not None:
        found.metrics |= real.result()
    return found


def _both(*observers: Any) -> Any:
    """One observer for those that there are."""
    there = [each for each in observers if each is not None]

    def observe(*found: Any) -> None:
        for each in there:
            each(*found)

    return observe


SUBSETS = {"a": "imagenet-a", "r": "imagenet-r", "mini": "mini-imagenet"}
"""Sets with a part of ImageNet's classes; `v2` and `sketch` have all of them, `real` has labels of its own."""


def subset_of(settings: Settings, answer: Answer) -> Answer:
    """The answer with the subset's classes only. Raises `UsageError` where the model does not know them."""
    if settings.subset in ("", "v2", "sketch", "real"):
        return answer
    if settings.subset not in SUBSETS:
        raise UsageError(f"--subset {settings.subset} is unknown; use {', '.join([*SUBSETS, 'v2', 'sketch', 'real'])}")
    from imgzoo_data.info import ImageNetInfo

    info = ImageNetInfo(SUBSETS[settings.subset])
    if not set(info.label_names) <= set(answer.synsets):
        raise UsageError(f"--subset {settings.subset} needs a model that knows its classes, such as ImageNet's 1000")
    places = [answer.synsets.index(synset) for synset in info.label_names]
    names = tuple(info.label_descriptions())
    return Answer(answer.task, answer.count, names, tuple(info.label_names), tuple(places))


class Real:
    """Counts answers against the ReaL labels (arXiv:2006.07159) of ImageNet's validation images."""

    def __init__(self, source: Any, world: World) -> None:
        from imgzoo_data.info import RealLabels

        keys = [source.key(index) for index in range(len(source))]
        self.labels, self.world = RealLabels(keys), world

    def __call__(self, output: torch.Tensor, targets: torch.Tensor, indices: Any) -> None:
        self.labels.add(output.topk(5, 1).indices.cpu(), indices)

    def result(self) -> dict[str, float]:
        """Accuracy over all ranks in percent."""
        counts = [self.labels.count, *(self.labels.hits[k] for k in self.labels.topk)]
        total, *hits = self.world.reduce(torch.tensor(counts, device=self.world.device)).tolist()
        return {f"real_top{k}": 100 * hit / max(1, total) for k, hit in zip(self.labels.topk, hits)}
