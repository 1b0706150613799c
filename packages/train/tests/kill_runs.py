"""Kill training runs, or end them with SIGTERM, and compare: `python kill_runs.py FOLDER SEED TRIALS kill|term`.

Imports torch once and forks a process for every run. Prints a JSON line for each trial.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from train_ranks import free_port

import imgzoo_train.files.storage
import imgzoo_train.loop.fit
import imgzoo_train.runs.run
import imgzoo_train.scores.evaluation
from imgzoo_train.config.settings import Config, nested
from imgzoo_train.ranks.signals import Interrupted
from imgzoo_train.runs.folder import TIMES

BASE = {
    "model.name": "test_resnet",
    "model.drop_rate": 0.1,
    "data.source": "digits:",
    "data.batch_size": 120,
    "data.input_size": 16,
    "data.mixup": 0.2,
    "optim.accumulate": 2,
    "optim.lr": 0.01,
    "schedule.warmup_epochs": 0.5,
    "run.epochs": 3,
    "run.ema": [0.9],
    "run.log_every": 2,
    "run.save_every": 4,
    "run.threads": 1,
    "run.device": "cpu",
    "run.stall": 120,
}
PHASES = {  # what is counted -> (module, function, calls in a whole run)
    "batch": (imgzoo_train.loop.fit, "reseed", 34),
    "evaluation": (imgzoo_train.scores.evaluation, "_keep", 16),
    "saving": (imgzoo_train.files.storage, "write_file", 9),
    "saving tensors": (imgzoo_train.files.storage, "write_tensors", 18),
    "best": (imgzoo_train.files.storage, "remove_folder", 2),
}


def settings(folder: Path, **changes: Any) -> Config:
    return Config().merged(nested({**BASE, **changes, "run.output": str(folder)}), "test")


def arm(phase: str, call: int, number: int) -> None:
    """Make this process send itself a signal at the `call`-th call of what the phase counts."""
    module, name, _ = PHASES[phase]
    original, count = getattr(module, name), 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if count == call:
            os.kill(os.getpid(), number)
        count += 1
        return original(*args, **kwargs)

    setattr(module, name, counted)


def start(config: Config, rank: int, ranks: int, port: int, kill: tuple[str, int, int] | None) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        if ranks > 1:
            os.environ.update(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(ranks),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )
        if kill and (kill[2] == signal.SIGKILL or rank == ranks - 1):
            arm(*kill)
        resume = (Path(config.run.output) / "config.toml").exists()
        imgzoo_train.runs.run.train(config, resume=resume, quiet=True)
        code = 0
    except Interrupted as error:
        code = error.exit_code
    except BaseException:
        if kill is None:
            traceback.print_exc()
    finally:
        os._exit(code)


def run(config: Config, ranks: int, kill: tuple[str, int, int] | None = None) -> list[int]:
    """Run to the end or to the signal; the exit code of every rank."""
    port = free_port()
    children = [start(config, rank, ranks, port, kill) for rank in range(ranks)]
    codes, deadline = {}, time.monotonic() + 120
    while len(codes) < ranks:
        for child in children:
            if child not in codes:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    codes[child] = os.waitstatus_to_exitcode(status)
        if any(code < 0 for code in codes.values()) or time.monotonic() > deadline:  # the others cannot go on
            for child in children:
                if child not in codes:
                    os.killpg(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    codes[child] = -9
        time.sleep(0.01)
    for child in children:  # loader workers of a killed rank
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [codes[child] for child in children]


def digest(folder: Path) -> dict[str, str]:
    """sha256 of weights, optimizer, averages, progress, metrics, best weights."""
    last = max((folder / "checkpoints").glob("0*"))
    files = {path.name: path.read_bytes() for path in last.iterdir() if path.name != "manifest.json"}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in row.items() if name not in TIMES} for row in rows]
    files["metrics"] = json.dumps(kept).encode()
    files["best"] = (folder / "best" / "model.safetensors").read_bytes()
    return {"step": last.name, **{name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}}


def main() -> None:
    root, seed, trials = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}[sys.argv[4]]
    torch.set_num_threads(1)
    chance, wanted = random.Random(seed), {}
    for trial in range(trials):
        optimizer = ("sgd", "adamw", "muon")[trial % 3]
        ranks = 1 + (trial % 4 == 3)
        workers = 2 * (trial % 5 == 2)
        common = {"optim.name": optimizer}
        if (optimizer, ranks) not in wanted:
            folder = root / f"whole-{optimizer}-{ranks}"
            assert run(settings(folder, **common), ranks) == [0] * ranks, "the undisturbed run failed"
            wanted[optimizer, ranks] = digest(folder)

        folder, kills, exits = root / f"killed-{trial}", [], []
        for _ in range(1 + trial % 2):
            phases = list(PHASES) if ranks == 1 or number == signal.SIGKILL else ["batch", "evaluation"]
            phase = phases[(trial + len(kills)) % len(phases)]
            kills.append((phase, chance.randrange(PHASES[phase][2]) if trial else 0))
            began = time.monotonic()
            codes = run(settings(folder, **common, **{"data.workers": workers}), ranks, (*kills[-1], number))
            exits.append([codes, round(time.monotonic() - began, 1)])
        ended = run(settings(folder, **common), ranks) == [0] * ranks
        found = digest(folder) if ended else {}
        different = sorted(name for name, value in wanted[optimizer, ranks].items() if found.get(name) != value)
        result = {
            "trial": trial,
            "optimizer": optimizer,
            "ranks": ranks,
            "workers": workers,
            "kills": kills,
            "exits": exits,
        }
        print(json.dumps({**result, "ended": ended, "different": different}), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
