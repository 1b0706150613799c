"""Settings of a run as click options, and back into a configuration. No torch."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import click

from imgzoo.errors import UsageError
from imgzoo.loading.stored import MOST_PATCHES, MOST_SIDE
from imgzoo_train.config.flags import COMMAND_LINE, FLAGS
from imgzoo_train.config.recipes import load_recipe
from imgzoo_train.config.settings import Config, nested, parse_setting, rows

Command = Callable[..., Any]
TTA = "flip, five-crops, scales, or several of them, as flip,scales; all of what the network sees, after its crop"
"""The views of `scores.views`, which need torch, for the help of `--tta`."""
IMG_SIZE = click.option("--img-size", type=click.IntRange(1, MOST_SIDE), help="another input size, in pixels")
SEQUENCE = click.option(
    "--sequence",
    type=click.IntRange(0, MOST_PATCHES),
    help="most patches of an image at its own shape; 0: one size; as trained by default",
)


PRECISION = click.option(
    "--precision",
    default="fp32",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16", "pure-bf16"]),
    help="arithmetic of a forward pass; pure-bf16: the weights too",
)
DEVICE = click.option("--device", default="", help="cpu, cuda, cuda:1, mps...; without it the accelerator that is here")
RANGE = click.option("--range", help="values of black and white of images of more than 8 bits, e.g. 4095 or 0,255")
MAX_PIXELS = click.option("--max-pixels", type=click.IntRange(1), help="pixels above which an image is refused unread")
CHANNELS_LAST = click.option("--channels-last", is_flag=True, help="channels beside each other in memory")
WORKERS = click.option("--workers", default=0, type=click.IntRange(0), help="processes that read images; 0: threads")
TASK = click.Choice(["classification", "multilabel", "regression"])
ANSWERS = click.option("--task", type=TASK, help="what the model answers, where a file of weights does not say it")


ENGINES = ("auto", "eager", "inductor", "onnxruntime", "openvino")
"""`auto` and the names of `engines.choosing.ENGINES`, which need torch."""
ENGINE = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="deploy first; auto: the fastest at hand",
)


class Text(click.ParamType):
    """A text that says something: an empty one, as of a shell variable that is not set, is refused."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not str(value).strip():
            self.fail("it is empty; leave the option out", param, ctx)
        return str(value)


def batch_size(default: int) -> Callable[[Command], Command]:
    """The option `--batch-size`."""
    return click.option("--batch-size", default=default, type=click.IntRange(1), help="images of a forward pass")


def pretrained(help: str) -> Callable[[Command], Command]:
    """The option `--pretrained` of commands that use a model as it is."""
    return click.option("--pretrained", default="true", type=Text(), help=help)


def refuse_idle(**needs: str) -> None:
    """Raise `UsageError` for an option of the running command that was given although its like needs another.

    `private="repo"`: `--private` does nothing without `--repo`; `not ...` where it does nothing beside it.
    """
    ctx = click.get_current_context()
    flags = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    for name, other in needs.items():
        beside, other = other.startswith("not "), other.removeprefix("not ")
        given = ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and ctx.params[name] not in (None, False) and bool(ctx.params[other]) == beside:
            word = "beside" if beside else "without"
            raise UsageError(f"{flags[name]} does nothing {word} {flags[other]}: leave it out")


class Listed(click.ParamType):
    """Values separated by commas."""

    def __init__(self, item: type) -> None:
        self.item = item
        self.name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, list):
            return value
        try:
            return [self.item(part.strip()) for part in str(value).split(",") if part.strip()]
        except ValueError:
            self.fail(f"'{value}' is not a list of {self.item.__name__} separated by commas", param, ctx)


def click_type(kind: Any) -> Any:
    """The click type of a setting's type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return click_type(next(item for item in arguments if item is not types.NoneType))
    if origin is Literal:
        return click.Choice([choice for choice in arguments if choice])
    if origin is list:
        return Listed(arguments[0])
    return Text() if kind is str else kind


TITLES = {"": "Recipe", "model": "Model", "data": "Data", "optim": "Optimizer", "schedule": "Schedule", "loss": "Loss",
          "distill": "Teacher", "run": "Run"}  # fmt: skip
"""Section of the configuration -> the title of its options in `--help`."""


class Grouped(click.Command):
    """A command whose settings are listed under the sections of the configuration, its own options at the end."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {title: [] for title in TITLES.values()}
        own: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section, split, _ = (parameter.name or "").partition("__")
                groups.get(TITLES[section], own).append(record) if split else own.append(record)
        for title, records in {**groups, "Options": own}.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _with_default(help: str, flag: str, key: str, defaults: Config) -> str:
    """The help of a setting with its default, where it has one that says something."""
    section, _, name = key.rpartition(".")
    value = getattr(getattr(defaults, section) if section else defaults, name)
    if value is None or value in ("", [], {}):
        return help
    if isinstance(value, bool):
        value = flag if value else f"--no-{flag[2:]}"
    return f"{help}  [default: {value}]"


def config_options(command: Command) -> Command:
    """Add MODEL and an option for every setting that has a flag; what is not given is None."""
    from imgzoo_data.augmentations import AUGMENTATIONS

    table, defaults = rows(), Config()
    for name, (kind, help) in reversed(AUGMENTATIONS.items()):
        spelling = "--" + name.replace("_", "-")
        spelling = f"{spelling}/--no-{spelling[2:]}" if kind is bool else spelling
        chosen = click.Choice(kind) if isinstance(kind, tuple) else None if kind is bool else click_type(kind)
        command = click.option(spelling, f"data__augment__{name}", type=chosen, default=None, help=help)(command)
    for key, (flag, help) in reversed(FLAGS.items()):
        name, help = key.replace(".", "__"), _with_default(help, flag, key, defaults)
        if flag == "MODEL":
            command = click.argument(name, metavar="[MODEL]", required=False)(command)
        elif table[key] is bool:
            command = click.option(f"{flag}/--no-{flag[2:]}", name, default=None, help=help)(command)
        else:
            command = click.option(flag, name, type=click_type(table[key]), default=None, help=help)(command)
    command = click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="any setting, such as optim.options.nesterov=true"
    )(command)
    return click.option(
        "--config", "config_file", type=click.Path(path_type=Path), help="TOML file with settings; flags go over it"
    )(command)


def read_config(config_file: Path | None, settings: tuple[str, ...], flags: dict[str, Any]) -> Config:
    """Defaults, then the recipe, then the file, then `--set`, then flags."""
    given = {key.replace("__", "."): value for key, value in flags.items() if value is not None}
    config = Config()
    recipe = given.get("recipe")
    from_file = config
    if config_file is not None:
        from_file = Config.load(config_file)
        recipe = recipe or from_file.recipe
    if recipe:
        config = config.merged(load_recipe(str(recipe)), f"recipe {recipe}")
    if config_file is not None:
        config = Config.load(config_file, config)
    config = config.merged(nested(dict(parse_setting(text) for text in settings)), "--set")
    config = config.merged(nested(given), COMMAND_LINE)
    if recipe:
        config.recipe = str(recipe)
    return config


def existing_config(output: str) -> Path:
    """The configuration saved in a run folder; raises `UsageError` when there is none."""
    path = Path(output) / "config.toml"
    if not path.is_file():
        raise UsageError(f"'{output}' holds no run to resume: there is no {path.name} in it")
    return path
