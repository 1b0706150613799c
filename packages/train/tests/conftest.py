import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def threads():
    import torch

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
