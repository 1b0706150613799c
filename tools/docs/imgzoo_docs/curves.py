"""Schedules and optimizers drawn by running them."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from imgzoo.registry import registry

from .markdown import code, plain, table

TOTAL, WARMUP = 100, 10
SCHEDULES: dict[str, dict[str, Any]] = {
    "cosine": {},
    "cosine, two cycles": {"cycle_limit": 2, "cycle_decay": 0.5},
    "tanh": {},
    "poly": {"power": 2.0},
    "wsd": {},
    "rsqrt": {},
    "step": {"decay_every": 30, "decay_rate": 0.3},
    "multistep": {"milestones": [40, 70], "decay_rate": 0.3},
    "constant": {},
}
"""Title, which begins with the schedule's name -> options."""
OPTIMIZERS = {"sgd": 0.3, "adamw": 0.1, "lion": 0.03, "lamb": 0.1, "muon": 0.3, "adopt": 0.1, "mars": 0.1, "kron": 0.3}
"""Optimizer -> peak learning rate: of 1, 0.3, 0.1, ..., 0.001 the one whose last losses are least."""
STEPS, BATCH, SEED = 60, 256, 0


def schedules() -> str:
    from imgzoo_optim import create_scheduler

    lines = {}
    for title, options in SCHEDULES.items():
        schedule = create_scheduler(title.partition(",")[0], total=TOTAL, warmup=WARMUP, **options)
        lines[title] = [schedule(update) for update in range(min(schedule.length, 2 * TOTAL) + 1)]
    return panels(lines, "update", f"Factor of the learning rate by update; total {TOTAL}, warm-up {WARMUP}")


def optimizers() -> str:
    lines = {f"{name}, lr {rate:g}": losses(name, rate) for name, rate in OPTIMIZERS.items()}
    about = f"Training loss of a two-layer network on the digits, {STEPS} updates of {BATCH} images, seed {SEED}"
    return panels(lines, "update", about, log=True)


def losses(name: str, rate: float) -> list[float]:
    """Loss of each update of a small network on scikit-learn's digits (64 values -> 64 -> 10 classes)."""
    import torch

    import imgzoo

    data = imgzoo.create_dataset("digits:", "train")
    samples = [data[index] for index in range(len(data))]
    pixels = torch.stack([torch.from_numpy(sample.data).flatten() for sample in samples]).float() / 255
    labels = torch.tensor([sample.target for sample in samples])
    torch.manual_seed(SEED)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = imgzoo.create_optimizer(name, model, lr=rate, weight_decay=0.0)
    schedule = imgzoo.create_scheduler("cosine", optimizer, total=STEPS)
    draw, found = torch.Generator().manual_seed(SEED), []
    for update in range(STEPS):
        chosen = torch.randint(len(labels), (BATCH,), generator=draw)
        schedule.apply(optimizer, update)
        loss = torch.nn.functional.cross_entropy(model(pixels[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def optimizer_table() -> str:
    """Every optimizer with its options' defaults left out: name, what it is, paper."""
    rows = [
        (code(spec.name), plain(spec.help), f"[{spec.paper}](https://arxiv.org/abs/{spec.paper})" if spec.paper else "")
        for spec in sorted(registry("optimizers").specs(), key=lambda spec: spec.name)
        if spec.plugin == "optim"
    ]
    return table(("name", "what it is", "paper"), rows)


def panels(lines: Mapping[str, Sequence[float]], under: str, about: str, log: bool = False) -> str:
    """Small drawings with common axes, as one SVG inside a figure."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    gray, columns = "#808080", 4 if log else 3
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": about, "font.size": 8}
    style |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), gray)
    with pyplot.rc_context(style):
        size = (9.0, 1.7 * -(-len(lines) // columns))
        figure, grid = pyplot.subplots(-(-len(lines) // columns), columns, figsize=size, sharey=True, squeeze=False)
        for axes, (title, values) in zip(grid.flat, lines.items()):
            axes.plot(values, color="#00897b")
            axes.set_title(title, fontsize=8)
            axes.set_yscale("log" if log else "linear")
            axes.grid(alpha=0.3)
        for axes in grid[-1]:
            axes.set_xlabel(under)
        figure.tight_layout()
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    drawing = out.getvalue()
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    drawing = re.sub(r"\s*\n\s*", " ", drawing.replace("<svg", f'<svg role="img" aria-label="{about}"', 1))
    return f"<figure>{drawing}<figcaption>{about}.</figcaption></figure>"
