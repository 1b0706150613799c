"""Prediction on files: the model's own preprocessing, class names in the answer, an unreadable file is a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import ImgzooError, UsageError
from imgzoo_train.models.sizes import check_size
from imgzoo_train.models.views import Viewed, parse_views

from .answers import answer_of
from .deployed import Deployed
from .modes import evaluating
from .opening import open_ready
from .parity import first_output, precision_of
from .sequences import asked, by_shape

Row = dict[str, Any]
NOT_FINITE = "the network answers with what is no finite number; its weights or its precision are broken"


class Predictor:
    """A model with its preprocessing and class names; `rows(paths)` yields an answer a file, in order.

    A model given to it stays in its mode and precision, and on its device unless another is named.
    """

    def __init__(
        self,
        model: Any,
        *,
        device: torch.device | None = None,
        img_size: int | None = None,
        max_pixels: int | None = None,
        tta: str | None = None,
        range: Any = None,
        sequence: int | None = None,
    ) -> None:
        from imgzoo_data import create_transform, resolve_data_config

        if not callable(model):
            raise UsageError(f"a Predictor takes a model; Predictor.open({str(model)!r}) takes a name, folder or file")
        self.model: Any = model
        self.views = parse_views(tta)
        self.device = device or next((each.device for each in self.model.parameters()), torch.device("cpu"))
        self.dtype = model.dtype if isinstance(model, Deployed) else precision_of(model)
        self.model.to(self.device)
        if isinstance(model, Deployed) and sequence:
            raise UsageError(f"{model.name} is deployed for images of one size: leave --sequence out")
        if img_size is not None:
            check_size(self.model, img_size)
        self.answer = answer_of(model)
        self.config = resolve_data_config(model, img_size=img_size, use_test_size=img_size is None, range=range)
        patches = asked(self.model, sequence)
        if patches and (self.views or img_size is not None):
            flag = "--tta" if self.views else "--img-size"
            raise UsageError(f"{flag} is about images of one size, {self.model.name} takes patches: add --sequence 0")
        self.transform = create_transform(self.config, training=False, max_pixels=max_pixels, sequence=patches)

    @classmethod
    def open(
        cls,
        text: str,
        pretrained: str = "true",
        *,
        engine: str | None = None,
        batch: int = 1,
        task: str | None = None,
        **options: Any,
    ) -> Predictor:
        """A predictor for a model name, a saved folder, a run folder or a deployed file.

        A model is deployed with `engine` where one is named, for batches of `batch`. `task` is what a bare file of
        weights answers.
        """
        size = options.get("img_size")
        return cls(open_ready(text, pretrained, engine, img_size=size, batch=batch, task=task).eval(), **options)

    @torch.inference_mode()
    def __call__(self, images: Any, topk: int = 5) -> Any:
        """The answer to an image, or a list of answers: paths, bytes, arrays (H, W[, C]) of uint8, or PIL images.

        A row is that of `rows` without `file`. What cannot be read raises the decoder's error.
        """
        if not isinstance(images, (list, tuple)):
            return self([images], topk)[0]
        return self.answers([self.transform(_stored(image)) for image in images], topk, False, False)

    def images(self, paths: Sequence[Path]) -> tuple[list[torch.Tensor], list[int], dict[int, str]]:
        """Images (C, H, W) of the readable files, their positions, and an error for each of the others."""
        images, places, errors = [], [], {}
        for place, path in enumerate(paths):
            try:
                images.append(self.transform(path.read_bytes()))
            except (ImgzooError, OSError, ValueError) as error:
                errors[place] = str(error)
            else:
                places.append(place)
        return images, places, errors

    @torch.inference_mode()
    def rows(
        self, paths: Iterable[Path], *, topk: int = 5, embed: bool = False, features: bool = False, batch_size: int = 16
    ) -> Iterator[Row]:
        """`{"file", "classes": [{"class", "index", "probability"}]}`, with `embedding` or `features`, or `error`.

        A model of several labels gives each its own probability; one of numbers gives `values` instead of `classes`,
        and their `names` where they have some.
        """
        for chunk in _chunks(paths, batch_size):
            images, places, errors = self.images(chunk)
            answers: dict[int, Row] = {place: {"error": text} for place, text in errors.items()}
            if places:
                for place, answer in zip(places, self.answers(images, topk, embed, features)):
                    answers[place] = answer
            for place, path in enumerate(chunk):
                yield {"file": str(path), **answers[place]}

    def answers(self, images: Sequence[torch.Tensor], topk: int, embed: bool, features: bool) -> list[Row]:
        """An answer for each image (C, H, W); those of one shape are seen together.

        Raises `UsageError` where the model has no classifier and nothing else is asked of it.
        """
        if not (self.answer.count or embed or features):
            raise UsageError(f"{self.model.name} has no classifier to answer with: ask for --embed or --features")
        answers: dict[int, Row] = {}
        with evaluating(self.model):
            for places, group in by_shape(images):
                answers |= dict(zip(places, self.batch(group.to(self.device, self.dtype), topk, embed, features)))
        return [answers[place] for place in range(len(images))]

    def batch(self, images: torch.Tensor, topk: int, embed: bool, features: bool) -> list[Row]:
        """An answer for each image of (B, C, H, W)."""
        if isinstance(self.model, Deployed):
            if embed or features:
                flag = "--embed" if embed else "--features"
                raise UsageError(f"a deployed model answers with its classes alone: leave {flag} or --engine out")
            called: Any = Viewed(self.model, self.views) if self.views else self.model
            return self.named(self.answer.activate(answered(called(images))), topk)
        maps = self.model.forward_features(images)
        logits = answered(self.model.forward_head(maps))
        if self.views:
            logits = answered(Viewed(self.model, self.views)(images))
        rows = self.named(self.answer.activate(logits), topk)
        if embed:
            for row, vector in zip(rows, self.model.forward_head(maps, pre_logits=True).float().cpu().tolist()):
                row["embedding"] = vector
        if features:
            for row, tensor in zip(rows, maps.float().cpu()):
                row["features"] = tensor.tolist()
        return rows

    def named(self, answers: torch.Tensor, topk: int) -> list[Row]:
        """A row for each of (B, count) probabilities or values; `error` where they are no finite number."""
        finite = answers.isfinite().all(1).tolist()
        rows = self._named(answers, topk)
        return [row if known else {"error": NOT_FINITE} for row, known in zip(rows, finite)]

    def _named(self, answers: torch.Tensor, topk: int) -> list[Row]:
        if not self.answer.count:
            return [{} for _ in answers]
        if self.answer.task == "regression":
            names = {"names": list(self.answer.names)} if self.answer.names else {}
            return [{"values": values, **names} for values in answers.tolist()]
        best, labels = answers.topk(min(topk, answers.shape[1]), 1), self.answer.labels
        return [
            {
                "classes": [
                    {"class": labels[index], "index": index, "probability": value}
                    for value, index in zip(values, indices)
                ]
            }
            for values, indices in zip(best.values.tolist(), best.indices.tolist())
        ]


def answered(output: Any) -> torch.Tensor:
    """The logits of a network, in a precision that their probabilities are told in."""
    logits = first_output(output)
    return logits if logits.dtype == torch.float64 else logits.float()


def _stored(image: Any) -> Any:
    """What the transform takes: bytes of a file, an array, or a PIL image."""
    if isinstance(image, (str, Path)):
        return Path(image).read_bytes()
    if hasattr(image, "getexif"):  # a PIL image, upright
        from PIL import ImageOps

        from imgzoo_data.deep import refuse_shallow

        refuse_shallow(image)
        return ImageOps.exif_transpose(image)
    return image


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as given, and the images below folders in sorted order; raises `UsageError` for what is not there."""
    from imgzoo_data.sources.folder import list_images

    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = list_images(path)
            if not inside:
                raise UsageError(f"there are no images below {path}")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"there is no file {path}")
    return found


def _chunks(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    chunk: list[Path] = []
    for path in paths:
        chunk.append(path)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
