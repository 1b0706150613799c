"""Several ranks on the CPU with gloo: exact evaluation, equal training, shared checkpoints."""

import pytest
from train_ranks import HERE, run_ranks

CHECKS = ["evaluation", "strategies", "sharded_rules", "sharded_run", "checkpoints", "sync_bn", "statistics",
          "bad_rank", "gather", "signals"]  # fmt: skip


@pytest.mark.parametrize(
    ("world", "checks"), [(1, ["evaluation"]), (2, CHECKS), (3, ["evaluation", "gather", "sync_bn"])]
)
def test_ranks(tmp_path, world, checks):
    codes, output = run_ranks([str(HERE / "rank_checks.py"), str(tmp_path), *checks], world)
    assert codes == [0] * world, output
    assert [line for line in output.splitlines() if line.startswith("passed")] == [f"passed {name}" for name in checks]
