"""An explanation of one answer, and how it is shown: an overlay as PNG, and a page that loads nothing."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgzoo.errors import UsageError, WeightsError
from imgzoo.page import page, text
from imgzoo_train.files.storage import check_file, make_folder, replace_file, replace_text
from imgzoo_train.models.answers import place_of
from imgzoo_train.models.modes import evaluating
from imgzoo_train.models.prediction import Predictor, answered
from imgzoo_train.reporting.parts import note, table

from .methods import METHODS

HEAT = ((0.15, 0.0, 0.35), (0.75, 0.1, 0.3), (1.0, 0.6, 0.0), (1.0, 1.0, 0.5))
"""Colors of little to much relevance."""


@dataclass(frozen=True)
class Explanation:
    """Where the relevance for one output lies."""

    model: str
    method: str
    label: str
    """The class that is explained."""
    index: int
    """Its output."""
    image: Tensor
    """(H, W, 3) in 0 to 1: what the network saw, after resizing and crop."""
    relevance: Tensor
    """(H, W) that sums to 1: what speaks for the class. All zero where nothing does."""
    answer: dict[str, Any]
    """As `Predictor` gives it: `classes`, or `values`."""

    def overlay(self) -> Tensor:
        """(H, W, 3) in 0 to 1: the image in gray, colored where relevance lies."""
        share = (self.relevance / self.relevance.max().clamp_min(1e-12))[..., None]
        place = share * (len(HEAT) - 1)
        heat = sum((1 - (place - i).abs()).clamp_min(0) * torch.tensor(color) for i, color in enumerate(HEAT))
        gray = self.image.mean(2, keepdim=True)
        return gray * (1 - 0.75 * share.sqrt()) + heat * 0.75 * share.sqrt()

    def html(self) -> str:
        """A page with the image, the overlay and the answer."""
        cells = [(each["class"], f"{each['probability']:.2%}") for each in self.answer.get("classes", ())]
        cells += [(str(i), f"{value:.6g}") for i, value in enumerate(self.answer.get("values", ()))]
        head = ("value", "") if "values" in self.answer else ("class", "probability")
        figures = "".join(
            f'<figure><img width="384" alt="{title}" src="data:image/png;base64,{b64encode(png(pixels)).decode()}">'
            f"<figcaption>{title}</figcaption></figure>"
            for title, pixels in (("what the network saw", self.image), (self.method, self.overlay()))
        )
        nothing = "" if self.relevance.any() else note("No pixel speaks for it.")
        body = (
            f'<main><section><p class="headline">{text(self.label)} by {text(self.model)}</p>{nothing}'
            f'<div class="tiled">{figures}</div></section><section><h2>Answer</h2>{table(head, cells)}</section></main>'
        )
        return page(f"imgzoo explain: {self.label}", "explanation", f"{self.method} of {self.model}", body)


def explain(predictor: Predictor, path: Path, method: str, wanted: str | None = None) -> Explanation:
    """Explain the answer to the image at `path`, or another class by its name or number.

    Raises `UsageError` for an image that cannot be read and an unknown class, `CapabilityError` for a method that needs
    what the model lacks, `WeightsError` where the answer is no finite number.
    """
    model, answer = predictor.model, predictor.answer
    if not answer.count:
        raise UsageError(f"{model.name} has no classifier whose answer could be explained: name a model that has one")
    index = None if wanted is None else place_of(wanted, answer, model.name)
    images, _, errors = predictor.images([path])
    if errors:
        raise UsageError(f"cannot read {path}: {errors[0]}")
    image = images[0][None].to(predictor.device, predictor.dtype)
    with evaluating(model), torch.inference_mode():
        output = answered(model(image))
    row = predictor.named(answer.activate(output), 5)[0]
    if "error" in row:
        raise WeightsError(f"{path}: {row['error']}")
    index = int(output[0].argmax()) if index is None else index
    with evaluating(model):
        relevance = METHODS[method](model, image.clone(), index).clamp_min(0)
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (predictor.config.mean, predictor.config.std))
    seen = (images[0].float() * std + mean).clamp(0, 1)
    seen = seen.expand(3, -1, -1) if len(seen) == 1 else seen[:3]
    return Explanation(
        model.name,
        method,
        answer.labels[index],
        index,
        seen.permute(1, 2, 0),
        relevance / relevance.sum().clamp_min(1e-12),
        row,
    )


def png(pixels: Tensor) -> bytes:
    """(H, W, 3) in 0 to 1 as a PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray((pixels * 255).round().to(torch.uint8).numpy()).save(file, "PNG")
    return file.getvalue()


def files_for(output: Path, image: Path, method: str) -> tuple[Path, Path]:
    """The PNG and the page: `output` where it ends in .png or .html, or IMAGE-METHOD in that folder, which is made.

    Raises `UsageError` where one of them exists or cannot be written, or `output` is a picture of another kind.
    """
    suffix = output.suffix.lower()
    if suffix in (".jpg", ".jpeg", ".webp", ".svg", ".pdf", ".htm"):
        raise UsageError(f"--output {output} ends in neither .png nor .html, and reads as no folder")
    picture = output
    if suffix not in (".png", ".html"):
        picture = make_folder(output) / f"{image.stem}-{method}.png"
    files = (picture.with_suffix(".png"), picture) if suffix == ".html" else (picture, picture.with_suffix(".html"))
    for file in files:
        if file.exists():
            raise UsageError(f"{file} exists; choose another --output")
        check_file(file)
    return files


def write(explanation: Explanation, files: tuple[Path, Path]) -> None:
    replace_file(files[0], png(explanation.overlay()))
    replace_text(files[1], explanation.html())
