"""What is given has its effect or is refused: options that need another, numbers that are none, empty texts."""

import math

import click
import pytest
from train_commands import TINY, fails, invoke

from imgzoo.cli.numbers import Number
from imgzoo.errors import UsageError
from imgzoo.registry import registry
from imgzoo_train.cli import average, export, launch, predict, push, sweep, train, validate
from imgzoo_train.config.settings import Config, nested, rows
from imgzoo_train.models.averaging import write_weights
from imgzoo_train.runs.checks import check_settings
from imgzoo_train.runs.idle import IDLE, check_idle, flag_of

GIVEN = {
    "optim.clip_mode": "agc", "model.unfreeze_epoch": 2, "model.split_bn": 2, "data.mix_prob": 0.5,
    "data.mix_off_epoch": 3, "data.fold": 1, "data.last_batch": True, "data.augment.crop_kind": "rkrc",
    "data.augment.scale": [0.5, 1.0], "data.augment.ratio": [0.9, 1.1], "data.augment.hflip": 0.1,
    "data.augment.vflip": 0.1, "data.augment.auto_augment": "3a", "data.augment.color_jitter": [0.4],
    "data.augment.grayscale_prob": 0.1, "data.augment.blur_prob": 0.1, "data.augment.erase_mode": "rand",
    "data.augment.erase_count": 2, "data.augment.color_jitter_prob": 0.3, "data.augment.force_color_jitter": True,
    "distill.temperature": 2.0, "distill.hard": True, "run.ema_warmup": False, "run.ema_cpu": True,
    "run.ema_precision": "stochastic", "run.max_nonfinite": 3, "run.rollback_lr": 0.5,
    "loss.threshold": 0.3, "data.augment.splits": 3,
}  # fmt: skip
BESIDE = {
    "where batches differ in size": {"data.sizes": [8, 16]},
    "beside --sequence": {"data.sequence": [16]},
    "beside --row": {"data.augment.row": "rrc"},
    "beside --auto-augment without --force-color-jitter": {"data.augment.auto_augment": "rand-m3"},
    "with --distill feature": {"distill.kind": "feature", "distill.teacher": "resnet18"},
    "with --distill-hard": {"distill.hard": True, "distill.teacher": "resnet18"},
}
"""What takes the effect of others away; all the rest of the table is about what is missing."""


@pytest.mark.parametrize("row", IDLE, ids=lambda row: f"{row.keys[0]} {row.why}")
def test_a_setting_without_effect_is_refused_by_its_flag(row):
    for key in row.keys:
        config = Config().merged(nested({key: GIVEN[key], **BESIDE.get(row.why, {})}), "here")
        with pytest.raises(UsageError, match=f"^{flag_of(key)} does nothing {row.why}"):
            check_idle(config)


def test_settings_that_have_their_effect_pass():
    check_idle(Config())
    for values in (
        {"optim.clip": 1.0, "optim.clip_mode": "agc"},
        {"run.nonfinite": "rollback", "run.rollback_lr": 0.5, "run.max_nonfinite": 3},
        {"run.swa_epochs": 2, "run.ema_cpu": True},
        {"data.augment.auto_augment": "3a", "data.augment.color_jitter": [0.4]},
        {"data.mixup": 0.2, "data.mix_prob": 0.5},
        {"data.augment.splits": 3, "data.augment.erase": 0.2},
    ):
        check_idle(Config().merged(nested(values), "here"))
    recipe = {"recipe": "deit", "data.augment.erase_mode": "pixel", "data.augment.erase": 0.0}
    check_idle(Config().merged(nested(recipe), "here"))  # the recipe's own leftover is nobody's mistake


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (launch, ["--partition", "gpu", "train"], "--partition does nothing without --slurm"),
        (launch, ["--node-rank", "1", "train"], "--node-rank does nothing without --rendezvous"),
        (push, ["run", "--card-only", "--repo", "a/b"], "--repo does nothing beside --card-only"),
        (sweep, ["test_resnet", "--grid", "optim.lr=[1]", "--trials", "3"], "--trials does nothing without --random"),
        (export, ["test_resnet", "--script"], "--script does nothing for --format onnx"),
        (average, ["a", "b", "--last", "1", "--best", "1", "--output", "o"], "give one of them"),
        (validate, ["test_resnet", "--data", "digits:", "--test-pool", "--crop-pct", "0.5"], "does nothing beside"),
        (train, ["test_resnet", "--data", "digits:", "--dry-run", "--find-lr"], "--dry-run and --find-lr"),
    ],
)
def test_an_option_of_a_command_without_effect_is_refused(module, arguments, words):
    assert words in fails(module, *arguments)


def commands():
    """(name, command) of all that the first party brings."""
    waiting = [(spec.name, spec.load()) for spec in registry("commands").specs()]
    while waiting:
        name, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [(f"{name} {inner}", each) for inner, each in command.commands.items()]
        else:
            yield name, command


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_number_of_any_command_may_be_none(value):
    seen = 0
    for name, command in commands():
        for option in command.params:
            if not isinstance(option.type, click.types.FloatParamType):
                continue
            seen += 1
            key = (option.name or "").replace("__", ".")
            if not isinstance(option.type, Number):
                assert key in rows() or "augment" in key, f"{name} {option.opts}"
            if key in rows():
                with pytest.raises(UsageError, match="finite"):
                    Config().merged(nested({key: value}), "here")
            elif isinstance(option.type, Number):
                with pytest.raises(click.BadParameter):
                    option.type.convert(str(value), option, None)
    assert seen > 40


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rollback-lr", "5", "--nonfinite", "rollback"], "at most 1"),
        (["--threads", "1024"], "--threads 1024 is more than eight"),
        (["--auto-augment", "rand-m99"], "m99 is above the limit mmax10"),
        (["--auto-augment", "rand-m9-p3"], "p is a number from 0 to 1"),
        (["--sched", "cosin"], "there is no scheduler 'cosin'"),
        (["--task", "regression", "--loss", "mse", "--smoothing", "0.1"], "the loss mse knows no --smoothing"),
        (["--task", "regression", "--mixup", "0.2", "--smoothing", "0.1"], "the loss mse knows no --smoothing"),
        (["--loss", "zlpr", "--class-weights", "balanced"], "the loss zlpr knows no --class-weights"),
        (["--interpolation", "foo"], "interpolation 'foo' is unknown"),
        (["--set", "loss.options.nothing=1"], "loss 'cross-entropy' takes no option nothing"),
    ],
)
def test_what_cannot_be_right_is_said_before_the_first_batch(arguments, words, tmp_path):
    text = fails(train, "test_resnet", "--data", "digits:", *TINY, "--output", tmp_path / "run", *arguments)
    assert words in text and not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", ["--find-lr", "--find-batch", "--profile", "--dry-run"])
def test_every_way_to_look_at_a_run_checks_its_settings(mode):
    assert "--unfreeze-epoch does nothing" in fails(
        train, "test_resnet", "--data", "digits:", *TINY, "--unfreeze-epoch", "2", mode
    )


def test_a_choice_of_the_configuration_is_a_choice_everywhere():
    for key, kind in rows().items():
        if "Literal" in str(kind):
            with pytest.raises(UsageError, match="one of"):
                Config().merged(nested({key: "nope"}), "here")
    assert invoke(train, "--clip-mode", "foo", code=2)


@pytest.mark.parametrize("module", [train, sweep, validate, predict, export])
def test_an_empty_text_is_refused(module):
    assert "it is empty; leave the option out" in invoke(module, "--pretrained", "", "test_resnet", code=2).output


def test_weights_are_never_written_over_a_run(tmp_path):
    (tmp_path / "config.toml").write_text("")
    for target in (tmp_path, tmp_path / "best"):
        with pytest.raises(UsageError, match="belongs to the run"):
            write_weights({}, None, target)


def test_an_average_is_named_once():
    with pytest.raises(UsageError, match=r"^--ema 0\.9,0\.99,0\.9 names a decay twice"):
        check_settings(Config().merged(nested({"run.ema": [0.9, 0.99, 0.9]}), "here"), output=False)


def test_a_batch_holds_the_repeats_of_an_image(tmp_path):
    common = ["test_resnet", "--data", "digits:", *TINY, "--output", tmp_path / "run", "--dry-run"]
    assert "--repeats 121 is more than the 120 images of a batch" in fails(train, *common, "--repeats", 121)
    invoke(train, *common, "--repeats", 120)
