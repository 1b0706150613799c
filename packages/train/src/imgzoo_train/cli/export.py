"""`imgzoo export`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.numbers import Number
from imgzoo.cli.output import print_json, say
from imgzoo.errors import UsageError

from .options import pretrained as of_name
from .options import refuse_idle


@click.command("export")
@click.argument("model")
@click.option("--format", "form", default="onnx", type=click.Choice(["torch", "onnx", "torchscript"]))
@of_name("weights of a model given by name; 'false' for none")
@click.option("--output", type=click.Path(path_type=Path), help="file to write")
@click.option("--img-size", type=click.IntRange(1))
@click.option("--sequence", type=click.IntRange(1), help="patches of an image as input, in place of images (NaFlex)")
@click.option("--fold/--no-fold", default=False, help="fold batch norms and reparameterize first")
@click.option("--fixed-batch", type=click.IntRange(1), help="the one batch size that the file takes; any by default")
@click.option("--whole", is_flag=True, help="normalization and softmax or sigmoid inside: images of 0 to 1 go in")
@click.option("--script", is_flag=True, help="TorchScript by script instead of trace")
@click.option("--tolerance", default=1e-3, type=Number(0), help="largest relative difference that passes")
@click.option("--json", "as_json", is_flag=True, help="print the parity report as JSON")
def command(
    model: str,
    form: str,
    pretrained: str,
    output: Path | None,
    img_size: int | None,
    sequence: int | None,
    fold: bool,
    fixed_batch: int | None,
    whole: bool,
    script: bool,
    tolerance: float,
    as_json: bool,
) -> None:
    """Write MODEL (a name, a saved folder or a run folder) to a file, run the file, and report the difference."""
    from imgzoo_train.files.storage import check_file
    from imgzoo_train.models.deployment import deploy, example_images
    from imgzoo_train.models.exporting import SUFFIXES, export
    from imgzoo_train.models.opening import open_model
    from imgzoo_train.terminal.progress import working

    if script and form != "torchscript":
        raise UsageError(f"--script does nothing for --format {form}: leave it out")
    refuse_idle(img_size="not sequence")
    output = output or Path(f"{Path(model).name}{SUFFIXES[form]}")
    check_file(output)
    with working(f"export {model}") as step:
        step("opening the model")
        opened = open_model(model, pretrained, img_size=img_size)
        if img_size is not None:
            opened.pretrained_cfg = {**opened.pretrained_cfg, "input_size": (opened.in_chans, img_size, img_size)}
        if fold:
            step("folding batch norms")
            cfg = opened.pretrained_cfg
            opened = deploy(opened, channels_last=False)
            opened.pretrained_cfg = cfg
        report = export(
            opened,
            output,
            form,
            example=example_images(opened, fixed_batch or 2),
            sequence=sequence,
            dynamic=fixed_batch is None,
            tolerance=tolerance,
            script=script,
            whole=whole,
            step=step,
        )
    if as_json:
        print_json(report)
        return
    say(f"{output}: {report['bytes'] / 2**20:.1f} MiB")
    for batch, row in report["batches"].items():
        say(
            f"batch {batch}: largest difference {row['max_difference']:.2g} "
            f"({row['relative_difference']:.2g} of the largest output), same answer {row['top1_agreement']:.0%}"
        )
