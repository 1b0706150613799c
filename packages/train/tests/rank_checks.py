"""Checks that run on every rank of a gloo world: `python rank_checks.py FOLDER CHECK...`."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from train_toys import Batch, batches, cross_entropy, equal_states, make_data, make_net

from imgzoo.errors import CapabilityError
from imgzoo_optim import clip_gradients, create_optimizer
from imgzoo_train import Config, train
from imgzoo_train.files.checkpoints import Checkpoints
from imgzoo_train.files.packing import snapshot
from imgzoo_train.loop.fit import fit
from imgzoo_train.loop.nonfinite import Guard, NonFiniteError
from imgzoo_train.loop.state import State
from imgzoo_train.ranks import sharding
from imgzoo_train.ranks.signals import Interrupted, Signals
from imgzoo_train.ranks.world import World, join_world
from imgzoo_train.scores.evaluation import evaluate
from imgzoo_train.techniques.batch_norm import distribute_statistics, split_batch_norm, sync_batch_norm


def shard_of(batch: Batch, world: World) -> Batch:
    """This rank's part of a global batch; parts may differ by one sample."""
    count = len(batch.targets)
    mine = slice(world.rank * count // world.size, (world.rank + 1) * count // world.size)
    return Batch(*(column[mine] for column in batch))


def strided(images: torch.Tensor, targets: torch.Tensor, size: int, world: World) -> list[Batch]:
    rows = torch.arange(len(images))[world.rank :: world.size]
    return [Batch(images[part], targets[part], part) for part in rows.split(size) if len(part)]


def check_evaluation(world: World, folder: Path) -> None:
    """n x world x batch: counts exactly equal, loss sums to 1e-6."""
    net = make_net(seed=3).eval()
    for count in [*range(1, 18), 101]:
        images, targets = make_data(count, seed=count)
        with torch.no_grad():
            output = net(images)
        truth = F.cross_entropy(output, targets, reduction="none").double().sum().item()
        hits = int((output.argmax(1) == targets).sum())
        for size in (7, 16, 32):
            steps = -(-(-(-count // world.size)) // size)  # noqa: B002
            polled = []
            found = evaluate(
                net,
                strided(images, targets, size, world),
                classes=4,
                world=world,
                steps=steps,
                poll=lambda: polled.append(world.vote(0)()),  # noqa: B023
            )
            assert found.metrics["n"] == count
            assert round(found.metrics["top1"] * count / 100) == hits
            assert abs(found.metrics["top1"] - 100 * hits / count) < 1e-9
            assert found.metrics["top5"] == 100
            assert abs(found.metrics["loss"] * count - truth) < 1e-6 * max(1, count)
            assert int(found.scores.confusion.sum()) == count
            assert len(polled) == steps
            assert len(found.worst) == min(12, count)
            assert len({row.index for row in found.worst}) == len(found.worst)


def train_with(world: World, strategy: str, norm: bool = False, sync: bool = False, opt: Any = None) -> State:
    net: Any = make_net(norm=norm, drop=0.0).double()
    if sync:
        sync_batch_norm(net, world)
    if strategy == "fsdp2" and world.size > 1:
        sharding.shard(net, world)
    make = opt or (lambda params: torch.optim.AdamW(params, lr=0.05, weight_decay=0.01))
    groups = [{"params": list(net.parameters())}]
    optimizer = sharding.zero_optimizer(make, groups) if strategy == "zero1" and world.size > 1 else make(groups)
    model = sharding.replicate(net, world) if strategy != "fsdp2" and world.size > 1 else net
    return State(model, optimizer, net, world, sharded=strategy == "fsdp2" and world.size > 1)


def run_steps(state: State, world: World, steps: int = 6, accumulate: int = 3, skip: int = 0) -> None:
    images, targets = make_data(53, seed=9)
    data = [shard_of(batch, world) for batch in batches(images.double(), targets, 5)]
    fit(state, data[skip * accumulate :], cross_entropy, None, steps, accumulate=accumulate)


def assert_close(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], what: str) -> None:
    for name, tensor in right.items():
        torch.testing.assert_close(left[name], tensor, rtol=1e-6, atol=1e-6, msg=f"{what}: {name}")


def check_strategies(world: World, folder: Path) -> None:
    """DDP, FSDP2 and ZeRO-1 equal one process, ragged last batch and remainder of accumulation included."""
    alone = train_with(World(), "ddp")
    run_steps(alone, World())
    assert alone.step == 4  # 11 batches in groups of 3
    wanted = snapshot(dict(alone.plain.state_dict()))
    for strategy in ("ddp", "zero1", "fsdp2"):
        state = train_with(world, strategy)
        run_steps(state, world)
        assert_close(snapshot(dict(state.plain.state_dict())), wanted, strategy)


def check_sharded_rules(world: World, folder: Path) -> None:
    """Elementwise rules and clipping do on FSDP2's pieces what they do on whole tensors; others say they can't."""
    images, targets = make_data(24, seed=5)

    def train(where: World, rule: str, mode: str, value: float) -> tuple[dict[str, torch.Tensor], float]:
        net = make_net(drop=0.0).double()
        if where.size > 1:
            sharding.shard(net, where)
        optimizer = create_optimizer(rule, net, lr=0.01, weight_decay=0.05)
        for _ in range(3):
            net.zero_grad()
            F.cross_entropy(net(images.double()), targets).backward()  # equal batches: the mean over ranks is the same
            norm = clip_gradients(net, value, mode).item()
            optimizer.step()
        return snapshot(dict(State(net, optimizer, net, where, sharded=where.size > 1).plain.state_dict())), norm

    for rule, mode, value in (("lion", "norm", 0.1), ("adan", "agc", 0.01), ("madgrad", "value", 0.01)):
        wanted, norm = train(World(), rule, mode, value)
        found, same = train(world, rule, mode, value)
        assert_close(found, wanted, f"{rule}, {mode}")
        assert abs(same - norm) < 1e-9 * norm, (same, norm)
    for rule in ("lamb", "muon", "adafactor", "clion"):
        try:
            train(world, rule, "norm", 1.0)
        except CapabilityError as error:
            assert "whole tensors" in str(error)
        else:
            raise AssertionError(f"{rule} trained on pieces")


def check_sharded_run(world: World, folder: Path) -> None:
    """A whole run with FSDP2 and the defaults, channels-last among them, scores as one with DDP does."""
    data = {"source": "digits:", "batch_size": 60, "input_size": 16}
    scores = []
    for strategy in ("ddp", "fsdp2"):
        run = {"epochs": 1, "device": "cpu", "strategy": strategy, "output": str(folder / strategy)}
        settings = {"model": {"name": "test_resnet"}, "data": data, "optim": {"clip": 1.0}, "run": run}
        done = train(Config().merged(settings, "test"), quiet=True)
        scores.append(done["best"])
        if world.main:
            rows = [json.loads(line) for line in (folder / strategy / "metrics.jsonl").read_text().splitlines()]
            counted = sum(row["images"] for row in rows if row["kind"] == "train")
            assert counted == done["step"] * 60 * world.size, counted
    assert abs(scores[0]["loss"] - scores[1]["loss"]) < 1e-3, scores


def check_checkpoints(world: World, folder: Path) -> None:
    """What several ranks save one rank loads and goes on with, and back."""
    alone = train_with(World(), "ddp")
    run_steps(alone, World())
    wanted = snapshot(dict(alone.plain.state_dict()))
    for strategy in ("ddp", "zero1", "fsdp2"):
        root = folder / strategy
        several = train_with(world, strategy)
        run_steps(several, world, steps=2)
        parts = several.parts()
        if world.main:
            store = Checkpoints(root, background=False)
            store.save(several.step, parts)
        world.barrier()
        found = Checkpoints(root).newest()
        assert found is not None
        one = train_with(World(), "ddp")
        one.load(found.parts)
        assert one.step == 2
        run_steps(one, World(), skip=2)
        assert_close(snapshot(dict(one.plain.state_dict())), wanted, f"{strategy} to one rank")

        one = train_with(World(), "ddp")
        run_steps(one, World(), steps=2)
        several = train_with(world, strategy)
        several.load(snapshot(one.parts()))
        run_steps(several, world, skip=2)
        assert_close(snapshot(dict(several.plain.state_dict())), wanted, f"one rank to {strategy}")


def check_sync_bn(world: World, folder: Path) -> None:
    """Batch norm over ranks equals batch norm over the whole batch, unequal shares included."""
    images, targets = make_data(11, seed=4)
    whole = Batch(images.double(), targets, torch.arange(11))
    alone, several = train_with(World(), "ddp", norm=True), train_with(world, "ddp", norm=True, sync=True)
    fit(alone, [whole] * 3, cross_entropy, None, 3)
    fit(several, [shard_of(whole, world)] * 3, cross_entropy, None, 3)
    assert_close(several.plain.state_dict(), alone.plain.state_dict(), "sync bn")
    generator = torch.Generator().manual_seed(5)
    for dtype, bound in ((torch.float32, 1e-3), (torch.bfloat16, 2e-2)):  # far from zero: squares would cancel
        alone, several = nn.BatchNorm2d(3), sync_batch_norm(nn.BatchNorm2d(3), world)
        x = (1000 + torch.randn(11, 3, 4, 4, generator=generator)).to(dtype)
        mine = shard_of(Batch(x, targets, torch.arange(11)), world).images
        wanted = shard_of(Batch(alone(x.double().float()), targets, torch.arange(11)), world).images
        found = several(mine)
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), wanted, rtol=bound, atol=bound)
        assert_close({"var": several.running_var / 1e3}, {"var": alone.running_var / 1e3}, f"variance in {dtype}")
    norm = split_batch_norm(sync_batch_norm(nn.BatchNorm2d(3), world), 2)
    norm(torch.full((4, 3, 2, 2), float(world.rank)))
    mean = 0.1 * (world.size - 1) / 2
    for layer in (norm, norm.aux_bn[0]):
        torch.testing.assert_close(layer.running_mean, torch.full((3,), mean))


def check_statistics(world: World, folder: Path) -> None:
    """Running statistics are averaged, or taken from the main rank."""
    for how, wanted in (("reduce", (world.size - 1) / 2), ("broadcast", 0.0)):
        net = nn.BatchNorm2d(3)
        net.running_mean.fill_(float(world.rank))
        distribute_statistics(net, world, how)
        assert torch.equal(net.running_mean, torch.full((3,), wanted)), how


def check_bad_rank(world: World, folder: Path) -> None:
    """A NaN on one rank is seen by all: weights stay, and they stay equal."""
    for policy in ("skip", "raise"):
        state = train_with(world, "ddp", norm=True)
        images, targets = make_data(24, seed=4)
        data = [shard_of(batch, world) for batch in batches(images.double(), targets, 8)]
        run = {"broken": False}

        def loss_fn(model: Any, batch: Batch) -> torch.Tensor:
            loss = cross_entropy(model, batch)
            return loss * float("nan") if run["broken"] and world.rank == world.size - 1 else loss  # noqa: B023

        fit(state, data, loss_fn, None, 1)
        before = snapshot({"model": dict(state.plain.state_dict()), "optimizer": state.optimizer.state_dict()})
        run["broken"] = True
        try:
            fit(state, data[1:2], loss_fn, None, 2, guard=Guard(policy))
            assert policy == "skip"
        except NonFiniteError:
            assert policy == "raise"
        after = snapshot({"model": dict(state.plain.state_dict()), "optimizer": state.optimizer.state_dict()})
        assert equal_states(before, after), policy
        assert state.bad_steps == 1


def check_gather(world: World, folder: Path) -> None:
    """Rows of all ranks in order, even when some have none."""
    rows = torch.full((world.rank, 2), float(world.rank))
    gathered = world.gather(rows)
    wanted = torch.cat([torch.full((rank, 2), float(rank)) for rank in range(world.size)])
    assert torch.equal(gathered, wanted)
    assert world.vote(world.rank)() == world.size - 1


def check_signals(world: World, folder: Path) -> None:
    """A signal of one rank ends all of them at the same poll, and no rank waits for a slower one to poll."""
    with Signals(world) as signals:
        world.barrier()
        if world.rank:
            time.sleep(1)
        start = time.perf_counter()
        signals.poll()
        assert time.perf_counter() - start < 0.5
        if world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        done = 0
        try:
            for done in range(5):  # noqa: B007
                signals.poll()
        except Interrupted as error:
            assert error.exit_code == 143
        assert done == 1


CHECKS = {name.removeprefix("check_"): value for name, value in globals().items() if name.startswith("check_")}


def main() -> None:
    torch.set_num_threads(1)
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    failed = False
    with join_world("cpu", 60) as world:
        for name in names:
            try:
                CHECKS[name](world, folder / name)
            except Exception:
                failed = True
                traceback.print_exc()
                print(f"FAILED {name} on rank {world.rank}", flush=True)
                break
            if world.main:
                print(f"passed {name}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
