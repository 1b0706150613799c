import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def private_cache(tmp_path, monkeypatch):
    """Indexes of tests are kept apart from the user's."""
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "cache"))
