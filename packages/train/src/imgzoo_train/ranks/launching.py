"""Start training on several ranks: torchrun with what it needs to restart, or an sbatch file. No torch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from imgzoo.errors import UsageError
from imgzoo.text import shell_word

MODULE = "imgzoo_train"


@dataclass
class Plan:
    """Where the ranks are."""

    ranks: int = 1
    """Ranks a machine."""
    nodes: int = 1
    node_rank: int | None = None
    rendezvous: str = ""
    """`host:port` of one machine; the same on all."""
    job: str = "imgzoo"
    max_restarts: int = 0
    log_dir: str = ""


def torchrun(plan: Plan, arguments: Sequence[str]) -> list[str]:
    """The command line that starts this machine's ranks of `imgzoo ARGUMENTS`."""
    command = [sys.executable, "-m", f"{MODULE}.ranks.elastic", f"--nproc-per-node={plan.ranks}"]
    command += [f"--nnodes={plan.nodes}", f"--max-restarts={plan.max_restarts}"]
    if plan.nodes == 1 and not plan.rendezvous:
        command.append("--standalone")
    else:
        command += ["--rdzv-backend=c10d", f"--rdzv-endpoint={plan.rendezvous}", f"--rdzv-id={plan.job}"]
        if plan.node_rank is not None:
            command.append(f"--node-rank={plan.node_rank}")
    if plan.log_dir:
        command += [f"--log-dir={plan.log_dir}", "--tee=3"]
    return [*command, "-m", MODULE, *arguments]


def environment(plan: Plan) -> dict[str, str]:
    """Variables of the ranks.

    Without the first, ranks restarted after a crash look for the dead rank's address in a shared store and hang.
    """
    threads = max(1, (os.cpu_count() or 1) // plan.ranks)
    return {
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }


def launch(plan: Plan, arguments: Sequence[str]) -> int:
    """Run the ranks; passes SIGTERM and SIGINT on, and returns 128 + signal when one ended the run."""
    process = subprocess.Popen(torchrun(plan, arguments), env={**os.environ, **environment(plan)})
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.send_signal(signal.SIGTERM)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def sbatch(plan: Plan, arguments: Sequence[str], time: str = "24:00:00", partition: str = "") -> str:
    """A Slurm batch file that saves two minutes before its time is over and queues itself again.

    Raises `UsageError` for a time or a partition that would not stay in its line.
    """
    for option, text in (("--time", time), ("--partition", partition)):
        if not re.fullmatch(r"[\w.,:+-]*", text):
            raise UsageError(f"{option} {text!r} is no word that Slurm takes")
    plan.rendezvous, plan.job = "@HEAD", "@JOB"
    words = [shell_word(word) for word in ["python", *torchrun(plan, arguments)[1:]]]
    known = {"--rdzv-endpoint=@HEAD": '"--rdzv-endpoint=$HEAD:29500"', "--rdzv-id=@JOB": '"--rdzv-id=$SLURM_JOB_ID"'}
    known = {shell_word(mark): word for mark, word in known.items()}
    own = len(words) - len(arguments)
    words[:own] = [known.get(word, word) for word in words[:own]]
    exports = "\n".join(f"export {k}={v}" for k, v in environment(plan).items() if k != "OMP_NUM_THREADS")
    return f"""#!/bin/bash
#SBATCH --job-name=imgzoo
#SBATCH --nodes={plan.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={plan.ranks}
#SBATCH --time={time}
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
{f"#SBATCH --partition={partition}" if partition else ""}
{exports}
export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun {" ".join(words)} --auto-resume
"""
