"""Start several ranks on this machine (gloo), with a hard limit on the time they may take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_ranks(command: list[str], world: int, **environment: str) -> list[subprocess.Popen]:
    port = str(free_port())
    common = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
        **environment,
    }
    if world == 1:
        common.pop("WORLD_SIZE")
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]


def wait_ranks(processes: list[subprocess.Popen], timeout: float = 240.0) -> tuple[list[int], str]:
    """Exit codes and the output of all ranks."""
    outputs = []
    try:
        for process in processes:
            outputs.append(process.communicate(timeout=timeout)[0])
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    return [process.returncode for process in processes], "\n".join(outputs)


def run_ranks(command: list[str], world: int, timeout: float = 240.0, **environment: str) -> tuple[list[int], str]:
    return wait_ranks(start_ranks(command, world, **environment), timeout)
