"""int8: weights settled on their grid layer by layer, activations' ranges from images, accuracy on a source."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import ImgzooWarning, UsageError
from imgzoo_train.engines.base import WEIGHTS, Engine, ExportError, multiplies_bytes
from imgzoo_train.models.deployed import Deployed
from imgzoo_train.models.opening import advised, examined, open_split
from imgzoo_train.models.parity import first_output

if TYPE_CHECKING:
    from imgzoo_train.models.deployment import Plan

AT_ONCE = 16
SETTLED = 32
"""Most images that weights are settled on."""
ROWS = 1 << 14
"""Most inputs of a layer that its products are summed over."""
WIDE = 2304
"""Inputs of an output above which a layer's weights are rounded to the nearest; the cost grows with their cube."""


@dataclass(frozen=True)
class Calibration:
    """What int8 is calibrated and scored on: a source, or images (B, C, H, W) prepared as the model wants them."""

    source: Any
    split: str = "validation"
    images: int = 128
    """Most images to calibrate on, and `scored` to score; both are spread evenly over the source."""
    scored: int = 1000
    max_loss: float = 0.02
    """Most that may be lost, as a share: of the score of the task where labels line up, else of same answers."""
    range: Any = None
    """Values of black and white of images of more than 8 bits; None takes the source's, or the model's."""
    max_pixels: int | None = None


@dataclass
class Pictures:
    """Prepared images in batches, with targets where there are some that line up with the model's classes."""

    batches: list[torch.Tensor]
    targets: list[torch.Tensor] = field(default_factory=list)
    align: Any = None
    exact: torch.Tensor | None = None
    """What the model itself answers to them, all at once."""


def quantized(plan: Plan, engine: Engine, given: Any) -> Deployed:
    """The plan in int8 with one engine, or with int8 weights alone where that is no faster than fp32; scored.

    Raises `UsageError` for images that are not prepared as the model wants them, and where more is lost than allowed.
    """
    from imgzoo_train.models.deployment import build, traced

    asked = given if isinstance(given, Calibration) else Calibration(given)
    if not 0 <= asked.max_loss <= 1:
        raise UsageError(f"the loss that int8 may have is a share of 0 to 1, not {asked.max_loss}")
    if plan.pictures is None:
        plan.step("reading images to calibrate on")
        plan.pictures = pictures_of(plan.model, tuple(plan.example.shape[1:]), asked)
    pictures = plan.pictures
    images = spread(torch.cat(pictures.batches), asked.images)
    exact = build(plan, engine, "fp32")

    def made(precision: str, top: int, singles: list[torch.Tensor]) -> Deployed:
        name = f"int8 {top}"
        if name not in plan.programs:
            plan.step("settling weights on the grid of int8")
            network = settle(plan.folded[0], spread(images, SETTLED), top)
            plan.programs[name] = traced(network, plan.example, plan.batch)
        return build(plan, engine, precision, plan.programs[name], singles)

    found = made("int8", 127 if multiplies_bytes() else 64, list(images.split(1)))
    taken, wanted = found.report["ms"], exact.report["ms"]
    if taken >= wanted:
        told = f"static int8 takes {taken / wanted:.2g} times as long as fp32 with {engine.name} here"
        try:
            found = made(WEIGHTS, 127, [])
        except ExportError:  # OpenVINO has no such product for processors without AVX2
            told += ", and int8 weights alone do not run: it stays static"
        else:
            told += ": only the weights are int8"
        warnings.warn(told, ImgzooWarning, stacklevel=5)
        found.report["why"] = told
    plan.step("scoring int8")
    accuracy = found.report["accuracy"] = score(plan.model, found, pictures)
    if accuracy["loss"] > asked.max_loss:
        raise UsageError(
            f"{found.report['precision']} with {engine.name} loses {accuracy['loss']:.2%} on {accuracy['images']} "
            f"images, more than {asked.max_loss:.2%}: take fp32, calibrate on more images, or allow a larger loss"
        )
    return found


def spread(images: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many of the images, evenly spread."""
    return images if len(images) <= most else images[torch.linspace(0, len(images) - 1, most).long()]


def pictures_of(model: Any, size: tuple[int, ...], asked: Calibration) -> Pictures:
    """The images to calibrate and score on, prepared for the model at a size (C, H, W)."""
    if isinstance(asked.source, torch.Tensor):
        check_images(model, size, asked.source)
        return Pictures(list(asked.source.split(AT_ONCE)))
    return _from_source(model, size, asked)


def _from_source(model: Any, size: tuple[int, ...], asked: Calibration) -> Pictures:
    from imgzoo_data import create_loader, create_transform, resolve_data_config, settle
    from imgzoo_data.sources.views import Subset
    from imgzoo_train.models.answers import align, answer_of, answer_of_data

    answer, config = answer_of(model), resolve_data_config(model, img_size=size[1:], use_test_size=True)
    given: dict[str, Any] = {"range": asked.range} if asked.range else {}
    source = open_split(asked.source, asked.split, answer.task, **given)
    try:
        lined_up = align(answer, answer_of_data(source, answer.task))
    except UsageError:
        lined_up = None  # other classes: the images still tell how often the answer stays the same
    settle(source, config.range)
    if len(source) > asked.scored:
        source = Subset(source, torch.linspace(0, len(source) - 1, asked.scored).long().numpy())
    transform = create_transform(config, training=False, max_pixels=asked.max_pixels)
    loader = create_loader(source, transform, AT_ONCE, training=False)
    found = Pictures([], align=lined_up)
    for batch in advised(loader, examined(asked.source, asked.split)):
        found.batches.append(batch.images)
        if lined_up is not None:
            found.targets.append(lined_up.targets(batch.targets))
    return found


def check_images(model: Any, size: tuple[int, ...], images: torch.Tensor) -> None:
    """Raise `UsageError` for images that were not prepared as the model wants them: size, type, range of values."""
    from imgzoo_data import resolve_data_config

    if images.ndim != 4 or tuple(images.shape[1:]) != size or images.dtype != torch.float32 or not len(images):
        raise UsageError(
            f"images to calibrate on are (B, {', '.join(map(str, size))}) of float32, not {tuple(images.shape)} of "
            f"{str(images.dtype).removeprefix('torch.')}"
        )
    config = resolve_data_config(model)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (config.mean, config.std))
    inside = images * std + mean
    if not (float(inside.min()) >= -0.01 and float(inside.max()) <= 1.01):
        raise UsageError(
            f"images to calibrate on have values of {float(images.min()):.3g} to {float(images.max()):.3g}, which the "
            f"model's preprocessing (mean {config.mean}, std {config.std}) does not give: use create_transform"
        )


@torch.inference_mode()
def score(model: Any, found: Deployed, pictures: Pictures) -> dict[str, Any]:
    """`{"images", "agreement", "loss"}`, and `metric` with its value in `fp32` and `int8` where labels line up."""
    from imgzoo_train.scores.metrics import METRICS

    if pictures.exact is None:
        pictures.exact = torch.cat([first_output(model(part)) for part in pictures.batches]).flatten(1)
    answers = torch.cat([first_output(found(part)) for part in pictures.batches]).flatten(1)
    wanted = pictures.exact
    task = getattr(model, "task", "classification")
    if task == "classification":
        same = wanted.argmax(1) == answers.argmax(1)
    elif task == "multilabel":
        same = (wanted > 0) == (answers > 0)
    else:
        same = (wanted - answers).abs() <= 0.05 * wanted.abs().amax(0)
    agreement = float(same.double().mean())
    report = {"images": len(wanted), "agreement": agreement, "loss": 1 - agreement}
    if pictures.targets and pictures.align is not None:
        values = []
        for outputs in (wanted, answers):
            scores = METRICS[task](pictures.align.classes)
            scores.update(pictures.align.outputs(outputs), torch.cat(pictures.targets))
            values.append(scores.result()[scores.score])
        loss = max(0.0, values[0] - values[1]) / 100
        report |= {"metric": scores.score, "fp32": values[0], "int8": values[1], "loss": loss}
    return report


@torch.no_grad()
def settle(network: Any, images: torch.Tensor, top: int) -> Any:
    """A copy whose weights lie on the grid of int8, a step for each output channel: the largest weight is `top` steps.

    Each weight is rounded so that what it gets wrong is made up for by those after it, on the inputs that the images
    give (GPTQ, arXiv:2210.17323, of optimal brain surgery), and biases take up the mean of what is left
    (arXiv:1906.04721). Layers are settled in the order they run, each on what the settled ones before it put out.
    """
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    layers = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.Linear))]
    means: dict[nn.Module, torch.Tensor] = {}
    runs: dict[nn.Module, int] = {}

    def remember(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        means[layer], runs[layer] = _mean(layer, output), runs.get(layer, 0) + 1

    def change(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        if runs[layer] > 1:
            return None
        layer.weight.copy_(_rounded(layer, inputs[0], top))
        found = layer.forward(inputs[0])
        missing = means[layer] - _mean(layer, found)
        layer.bias = nn.Parameter(missing if layer.bias is None else layer.bias + missing, requires_grad=False)
        return layer.forward(inputs[0])

    for hook in (remember, change):
        handles = [layer.register_forward_hook(hook) for layer in layers]
        try:
            network(images)
        finally:
            for handle in handles:
                handle.remove()
    return network


def _mean(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """Mean of each output channel."""
    channels = 1 if isinstance(layer, nn.Conv2d) else output.ndim - 1
    return output.mean([place for place in range(output.ndim) if place != channels])


def _rounded(layer: Any, inputs: torch.Tensor, top: int) -> torch.Tensor:
    """The layer's weights on their grid."""
    weight = layer.weight
    flat = weight.flatten(1)
    step = (flat.abs().amax(1) / top).clamp(min=1e-12)
    groups = getattr(layer, "groups", 1)
    rows = _rows(layer, inputs, groups) if flat.shape[1] <= WIDE else None
    if rows is None:
        return ((flat / step[:, None]).round() * step[:, None]).view_as(weight)
    grouped = flat.view(groups, -1, flat.shape[1])
    return compensated(grouped, rows.transpose(1, 2) @ rows, step.view(groups, -1), top).view_as(weight)


def _rows(layer: Any, inputs: torch.Tensor, groups: int) -> torch.Tensor | None:
    """(groups, rows, K) inputs of a layer's products, some of them; None where they cannot be laid out."""
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(1, -1, inputs.shape[-1])
    elif isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    else:
        parts = inputs[:: max(1, len(inputs) // 16)]
        rows = F.unfold(parts, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = rows.view(len(parts), groups, -1, rows.shape[-1]).permute(1, 0, 3, 2).flatten(1, 2)
    return rows[:, :: -(-rows.shape[1] // ROWS)]


def compensated(weight: torch.Tensor, products: torch.Tensor, step: torch.Tensor, top: int) -> torch.Tensor:
    """Round weights (G, O, K) to multiples of `step` (G, O), given the sums of products of inputs (G, K, K).

    The largest of each output stays as it is: it tells the step to whoever reads the weights.
    """
    diagonal = products.diagonal(dim1=1, dim2=2)
    products = products + torch.diag_embed(0.01 * diagonal.mean(1, keepdim=True).clamp(min=1e-12).expand_as(diagonal))
    order = products.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    columns = order[:, None].expand_as(weight)
    left = weight.gather(2, columns)
    products = products.gather(1, order[..., None].expand_as(products)).gather(2, order[:, None].expand_as(products))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(products.double()))
    factor = torch.linalg.cholesky(inverse, upper=True).to(weight.dtype)
    found, largest = left.clone(), left.abs().argmax(2)
    for place in range(weight.shape[2]):
        column = left[..., place]
        rounded = (column / step).round().clamp(-top, top) * step
        found[..., place] = torch.where(largest == place, found[..., place], rounded)
        error = (column - found[..., place]) / factor[:, place, place, None]
        left[..., place:] -= error[..., None] * factor[:, place, None, place:]
    return torch.empty_like(found).scatter(2, columns, found)
