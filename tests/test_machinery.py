"""Family files hold the paper: what handles sizes, pools, fits and levels is the base's, and stays a small part."""

import ast
from pathlib import Path

PACKAGES = Path(__file__).parents[1] / "packages"
SIZES = ("set_input_size", "fit_size", "set_size", "sized", "grid_of", "measure", "resolution", "check_size")
POOLS = ("pool", "pool_kind", "_set_pool", "_check_pool", "make_attn_pool", "reset_classifier", "_new_head",
         "_new_classifier", "_behead")  # fmt: skip
FITS = ("fit_state", "fitted", "set_window", "set_grid", "init_non_persistent_buffers")
LEVELS = ("forward_intermediates", "prune_intermediate_layers", "_advance", "_collect", "_steps", "_pieces", "_place",
          "_cut", "_drop", "_ending", "_final_norm", "_format", "_stages", "_shown")  # fmt: skip
MACHINERY = {*SIZES, *POOLS, *FITS, *LEVELS}


def count(path: Path) -> tuple[int, int]:
    """Lines of methods that are machinery, and all lines of a file."""
    text = path.read_text()
    methods = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return sum(m.end_lineno - m.lineno + 1 for m in methods if m.name in MACHINERY), len(text.splitlines())


def share(package: str) -> float:
    counts = [count(path) for path in sorted(PACKAGES.glob(f"{package}/src/*/*.py"))]
    return sum(own for own, _ in counts) / sum(total for _, total in counts)


def test_transformers_are_mostly_their_papers():
    assert share("archs-transformer") < 0.08


def test_convolutional_networks_are_mostly_their_papers():
    assert share("archs-cnn") < 0.04 and share("archs-efficientnet") < 0.04


def test_the_count_sees_machinery(tmp_path):
    file = tmp_path / "family.py"
    file.write_text("class Net:\n    def set_input_size(self):\n        pass\n\n    def forward(self):\n        pass\n")
    assert count(file) == (2, 6)
