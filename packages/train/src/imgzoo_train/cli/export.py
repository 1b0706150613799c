"""`imgzoo export`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.numbers import Number
from imgzoo.cli.output import print_json, say, without_gc
from imgzoo.errors import UsageError
from imgzoo.loading.stored import MOST_PATCHES

from .options import ANSWERS, ENGINES, IMG_SIZE, MAX_PIXELS, RANGE, refuse_idle
from .options import pretrained as of_name


@click.command("export")
@click.argument("model")
@click.option("--format", "form", default="onnx", type=click.Choice(["torch", "onnx", "torchscript"]),
              help="torch: a program of torch.export")  # fmt: skip
@click.option("--engine", type=click.Choice(ENGINES),
              help="write a deployed file, which other commands take as a model; auto: the fastest")  # fmt: skip
@of_name("weights of a model given by name; 'false' for none")
@ANSWERS
@click.option("--output", type=click.Path(path_type=Path), help="file to write")
@IMG_SIZE
@click.option(
    "--sequence", type=click.IntRange(1, MOST_PATCHES), help="patches of an image as input, in place of images (NaFlex)"
)
@click.option("--fold/--no-fold", default=False, help="fold batch norms and reparameterize first, as --engine does")
@click.option("--fixed-batch", type=click.IntRange(1), help="the one batch size that the file takes; any by default")
@click.option("--whole", is_flag=True, help="normalization and softmax or sigmoid inside: images of 0 to 1 go in")
@click.option("--script", is_flag=True, help="TorchScript by script instead of trace")
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16", "fp16", "int8"]),
              help="with --engine; bf16 and fp16 only where they are measured to be faster")  # fmt: skip
@click.option("--calibrate", metavar="SOURCE", help="images that int8 is calibrated and scored on, as folder:PATH")
@click.option("--split", default="validation", help="part of --calibrate")
@RANGE
@MAX_PIXELS
@click.option("--max-loss", default=0.02, type=Number(0, 1), help="most accuracy that int8 may lose, as a share")
@click.option("--threads", type=click.IntRange(1), help="threads that --engine is measured with")
@click.option("--tolerance", type=Number(0), help="largest relative difference that passes  [default: 1e-3; 0.1 in "
              "bf16 and fp16; for int8 its loss counts]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="print the parity report as JSON")
def command(
    model: str, output: Path | None, engine: str | None, as_json: bool, threads: int | None, **options: Any
) -> None:
    """Write MODEL (a name, a saved folder or a run folder) to a file, run the file, and report the difference."""
    with without_gc():
        from imgzoo_train.config.limits import check_threads
        from imgzoo_train.engines.files import SUFFIX
        from imgzoo_train.files.storage import check_file
        from imgzoo_train.models.exporting import SUFFIXES
        from imgzoo_train.terminal.progress import working

    if options["script"] and options["form"] != "torchscript":
        raise UsageError(f"--script does nothing for --format {options['form']}: leave it out")
    refuse_idle(img_size="not sequence")
    refuse_idle(**dict.fromkeys(("form", "whole", "sequence", "fold"), "not engine"))
    refuse_idle(**dict.fromkeys(("precision", "threads", "calibrate"), "engine"))
    refuse_idle(**dict.fromkeys(("split", "max_loss", "range", "max_pixels"), "calibrate"))
    check_threads(threads or 1)
    suffix = SUFFIX if engine else SUFFIXES[options["form"]]
    output = output or Path(f"{Path(model).name}{suffix}")
    others = {SUFFIX: "--engine", **{end: f"--format {form}" for form, end in SUFFIXES.items()}}
    if output.suffix != suffix and output.suffix in others:
        told = f"{output.suffix} is the end of {others[output.suffix]}"
        raise UsageError(f"{told}: add that, or call --output {output.with_suffix(suffix).name}")
    known = engine or output.exists()  # a new file may be called anything, a deployed one is known by its end
    check_file(output, *((suffix,) if known else ()))
    with working(f"export {model}") as step:
        if engine:
            report = _deployed(model, output, engine, threads, step, **options)
        else:
            report = _exported(model, output, step, **options)
    if as_json:
        print_json(report)
        return
    say(f"{output}: {report['bytes'] / 2**20:.1f} MiB")
    for batch, row in report["batches"].items():
        say(
            f"batch {batch}: largest difference {row['max_difference']:.2g} "
            f"({row['relative_difference']:.2g} of the largest output), same answer {row['top1_agreement']:.0%}"
        )
    if engine:
        say(
            f"{report['engine']}, {report['precision']}: {report['ms']:.3g} ms, made in "
            f"{report['compile_seconds']:.3g} s, {report['memory_mb']:.0f} MiB more in memory"
        )
        if "accuracy" in report:
            say(said(report["accuracy"]))
        if "why" in report:
            say(report["why"])


def said(accuracy: dict[str, Any]) -> str:
    """What the quantized network lost, in a line."""
    told = f"{accuracy['images']} images: same answer {accuracy['agreement']:.1%}"
    if "metric" in accuracy:
        told += f", {accuracy['metric']} {accuracy['fp32']:.2f} in fp32, {accuracy['int8']:.2f} in int8"
    return told


def _exported(model: str, output: Path, step: Callable[[str], Any], **options: Any) -> dict[str, Any]:
    """Write one of the formats that others read."""
    with without_gc():
        from imgzoo_train.models.deployment import folded
        from imgzoo_train.models.exporting import export
        from imgzoo_train.models.opening import open_model
        from imgzoo_train.models.parity import example_images

    step("opening the model")
    img_size, fixed = options["img_size"], options["fixed_batch"]
    opened = open_model(model, options["pretrained"], task=options["task"], img_size=img_size).eval()
    if img_size is not None:
        opened.pretrained_cfg = {**opened.pretrained_cfg, "input_size": (opened.in_chans, img_size, img_size)}
    example = example_images(opened, fixed or 2)
    if options["fold"]:
        step("folding batch norms")
        opened = folded(opened, example)[0]
    return export(
        opened,
        output,
        options["form"],
        example=example,
        sequence=options["sequence"],
        dynamic=fixed is None,
        tolerance=1e-3 if options["tolerance"] is None else options["tolerance"],
        script=options["script"],
        whole=options["whole"],
        step=step,
    )


def _deployed(
    model: str, output: Path, engine: str, threads: int | None, step: Callable[[str], Any], **options: Any
) -> dict[str, Any]:
    """Write a deployed file, read it again, and compare its answers for batches of several sizes."""
    with without_gc():
        from imgzoo_train.models.deployed import Deployed, load_deployed
        from imgzoo_train.models.deployment import deploy
        from imgzoo_train.models.opening import open_model, seen_size
        from imgzoo_train.models.parity import compare, example_images, shapes
        from imgzoo_train.models.quantizing import Calibration

    step("opening the model")
    opened = open_model(model, options["pretrained"], task=options["task"], img_size=options["img_size"]).eval()
    fixed = options["fixed_batch"]
    if isinstance(opened, Deployed):
        raise UsageError(f"{model} is deployed already: give the model that it was made of")
    calibrate = options["calibrate"]
    if calibrate is not None:
        asked = {name: options[name] for name in ("split", "max_loss", "range", "max_pixels")}
        calibrate = Calibration(calibrate, **asked)
    example = example_images(opened, fixed or 2, seen_size(opened, options["img_size"]))
    deployed = deploy(
        opened,
        engine,
        precision=options["precision"],
        example=example,
        batch=fixed,
        threads=threads,
        calibrate=calibrate,
        tolerance=options["tolerance"],
        step=step,
    )
    deployed.save(output)
    loaded, batches = load_deployed(output, threads=threads), {}
    for images in shapes(example, (1, 2, 5)):
        step(f"comparing the answers to {len(images)} images")
        batches[str(len(images))] = compare(opened, loaded, images).as_dict()
    kept = {"file": output.name, "bytes": output.stat().st_size, "batches": batches}
    return {**kept, **deployed.report, "model": {**deployed.record["model"]}}
