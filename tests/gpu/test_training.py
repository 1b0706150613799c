"""Runs on a GPU: every precision, exact resume, several ranks' strategies over NCCL, and a loop that never waits."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from imgzoo_optim import create_optimizer
from imgzoo_train import train
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.loop.fit import fit
from imgzoo_train.loop.nonfinite import Guard, NonFiniteError
from imgzoo_train.loop.state import State
from imgzoo_train.ranks.world import World
from imgzoo_train.techniques.averages import Average
from imgzoo_train.techniques.precision import create_precision

sys.path.insert(0, str(Path(__file__).parents[2] / "packages" / "train" / "tests"))
from train_toys import Net, batches, cross_entropy, make_data

MODEL = "test_resnet"


def config(folder, device, **given):
    options = {
        "model.name": MODEL,
        "data.source": "digits:",
        "data.batch_size": 120,
        "data.input_size": [16],
        "optim.lr": 0.01,
        "run.epochs": 2,
        "run.device": str(device),
        "run.output": str(folder),
        **given,
    }
    return Config().merged(nested(options), "test")


def scores(folder):
    rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return [row["top1"] for row in rows if row["kind"] == "eval"]


@pytest.mark.parametrize("layout", [True, False], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16", "pure-bf16"])
def test_run(device, tmp_path, precision, layout):
    if precision == "tf32" and device.type == "cpu":
        pytest.skip("CUDA alone has this")
    given = {"run.precision": precision, "run.channels_last": layout, "run.ema": [0.9], "run.epochs": 3}
    train(config(tmp_path / "run", device, **given), quiet=True)
    assert scores(tmp_path / "run")[-1] > 40


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_run(cuda, tmp_path, precision):
    given = {"run.precision": precision, "run.compile": True, "run.epochs": 3}
    train(config(tmp_path / "run", cuda, **given), quiet=True)
    assert scores(tmp_path / "run")[-1] > 40


def test_mixing_erasing_distilling_run(device, tmp_path):
    given = {"data.mixup": 0.8, "data.cutmix": 1.0, "data.augment": {"erase": 0.25, "erase_mode": "pixel"}}
    train(config(tmp_path / "teacher", device, **{"run.epochs": 1}), quiet=True)
    given |= {"distill.teacher": str(tmp_path / "teacher" / "best"), "optim.clip": 1.0, "data.workers": 2}
    train(config(tmp_path / "run", device, **given), quiet=True)
    assert scores(tmp_path / "run")


class Stopped(Exception):
    """Ends a run from a callback."""


def checkpoint(folder, device, resume=False, until=None):
    """The last checkpoint's files of a deterministic run, which a callback may end after a step."""

    def stop(run, row):
        if until is not None and row["step"] >= until:
            raise Stopped

    given = {"run.deterministic": True, "run.precision": "bf16", "run.ema": [0.9], "data.mixup": 0.5}
    given |= {"run.save_every": 3, "run.log_every": 1}
    with contextlib.nullcontext() if until is None else pytest.raises(Stopped):
        train(config(folder, device, **given), quiet=True, resume=resume, callbacks=[stop])
    last = max(path for path in (Path(folder) / "checkpoints").iterdir() if path.is_dir())
    return {path.name: path.read_bytes() for path in last.iterdir()}


def test_a_resumed_run_is_the_same_to_the_last_bit(device, tmp_path):
    whole = checkpoint(tmp_path / "whole", device)
    checkpoint(tmp_path / "parts", device, until=8)
    parts = checkpoint(tmp_path / "parts", device, resume=True)
    tensors = [name for name in whole if name.endswith(".safetensors")]
    assert tensors
    for name in tensors:
        assert parts[name] == whole[name], name


def state_on(device, precision="fp32", **guarded):
    torch.manual_seed(0)
    net = Net().to(device)
    state = State(net, create_optimizer("adamw", net, lr=0.01), world=World(device=device))
    state.precision = create_precision(precision, device)
    state.averages = {"ema": Average(net, 0.9)}
    return state


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_loop_waits_for_nothing(device, unwatched, precision, accumulate):
    from imgzoo_optim import clip_gradients, create_scheduler

    state = state_on(device, precision)
    images, targets = make_data(128)
    data = batches(images.to(device), targets.to(device), 8)
    schedule = create_scheduler("cosine", state.optimizer, total=16, warmup=2)
    clip = lambda parameters: clip_gradients(parameters, 1.0)  # noqa: E731
    guard = Guard()
    fit(state, data[: 4 * accumulate], cross_entropy, schedule, 4, accumulate=accumulate, clip=clip, guard=guard)
    unwatched(True)
    fit(state, data[4 * accumulate :], cross_entropy, schedule, 8, accumulate=accumulate, clip=clip, guard=guard)
    unwatched(False)
    assert state.step == 8
    assert state.meters.take()["loss"] > 0


def test_what_is_not_finite_is_seen_one_step_later(device):
    state = state_on(device)
    images, targets = make_data(32)
    images[8:16] = torch.nan
    with pytest.raises(NonFiniteError):
        fit(state, batches(images.to(device), targets.to(device), 8), cross_entropy, None, 4, guard=Guard(lagging=True))


def test_averages_on_the_cpu_are_those_on_the_device(device):
    """A copy off the device must have arrived before it is averaged."""
    torch.manual_seed(0)
    net = torch.nn.Linear(2048, 2048).to(device)
    near, far = Average(net, 0.9), Average(net, 0.9, device=torch.device("cpu"))
    for _ in range(5):
        with torch.no_grad():
            for _ in range(50):
                net.weight.copy_(net.weight @ net.weight).div_(net.weight.norm())
        near.update(net)
        far.update(net)
    for name, tensor in near.tensors.items():
        torch.testing.assert_close(far.tensors[name], tensor.cpu())


def test_a_batch_too_large_for_the_device_is_cut(cuda):
    state = state_on(cuda)
    tried = []

    def loss(model, batch):
        tried.append(len(batch.targets))
        if len(batch.targets) > 4:
            torch.empty(1 << 50, device=cuda)
        return cross_entropy(model, batch)

    images, targets = make_data(16)
    fit(state, batches(images.to(cuda), targets.to(cuda), 16), loss, None, 1)
    assert state.step == 1 and min(tried) == 4


@pytest.mark.parametrize("command", ["validate", "predict", "benchmark"])
def test_commands(device, tmp_path, command):
    train(config(tmp_path / "run", device, **{"run.epochs": 1}), quiet=True)
    best, picture = str(tmp_path / "run" / "best"), tmp_path / "picture.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    given = {
        "validate": [best, "--data", "digits:", "--precision", "bf16"],
        "predict": ["--model", best, str(picture)],
        "benchmark": [MODEL, "--seconds", "0.2", "--mode", "inference,training", "--precision", "bf16"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "imgzoo", command, *given, "--device", str(device)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


STRATEGIES = ("ddp", "fsdp2", "zero1")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks(cuda, tmp_path, strategy):
    """One rank a device, over NCCL: the weights are those of one process that saw all samples."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    world = torch.cuda.device_count()
    processes = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("ranks.py")), strategy, str(tmp_path)],
            env={**os.environ, "WORLD_SIZE": str(world), "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    output = "".join(process.communicate(timeout=300)[0] for process in processes)
    assert [process.returncode for process in processes] == [0] * world, output
