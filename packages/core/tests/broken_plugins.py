"""Plugins that are wrong in one way each, beside a sound one: for the tests of the conformance kit.

A row of `BROKEN` says what stands in the plugin module, what in the module behind it, and which check of which subject
must fail with which words.
"""

from textwrap import dedent
from typing import NamedTuple

HEADER = "from imgzoo.plugin import *\nfrom imgzoo.plugin import hookimpl\nIMGZOO_API = (1, 0)\n"
"""How the module of a plugin begins."""
METADATA = "Metadata-Version: 2.4\nName: acme-zoo\nVersion: 1.0\nRequires-Dist: imgzoo-core<2,>=0.1\n"
EXAMPLES = {"dataset:acme": "5"}


class Broken(NamedTuple):
    """What is in the plugin module, what in the module behind it, and what must be said of it."""

    plugin: str
    parts: str
    subject: str
    check: str
    words: str


def hook(name: str, *rows: str) -> str:
    return f"@hookimpl\ndef imgzoo_{name}():\n    return [{', '.join(rows)}]\n"


def one(kind: str, spec: str = "ComponentSpec", name: str = "acme") -> str:
    return hook(kind, f"{spec}('{name}', 'acme_zoo.parts:It')")


def net(body: str, **row: str) -> tuple[str, str]:
    """A model `acme_net` whose class changes TinyNet."""
    options = "".join(f", {key}={value}" for key, value in row.items())
    plugin = hook("models", f"ModelSpec('acme_net', 'acme_zoo.parts:Net'{options})")
    head = "import sys\nimport torch\nfrom tiny_models import *\n\n\nclass Net(TinyNet):\n"
    return plugin, head + "\n".join(f"    {line}" for line in dedent(body).strip().splitlines()) + "\n"


OPTIMIZER = """
import torch
class It(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.steps = 0
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                with torch.no_grad():
                    %s
        self.steps += 1
"""
DATASET = """
import numpy as np
from imgzoo_data.sources.base import Sample, Source
class It(Source):
    def __init__(self, location, split="train"):
        self.count, self.class_names = int(location), ["ant", "bee"]
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        return %s
"""
TRANSFORM = """
import numpy as np
import torch
from imgzoo_data.transforms.picture import Picture
class It:
    def __call__(self, picture, rng, config):
        return %s
"""
SOUND = {
    "optimizers": OPTIMIZER % 'p.sub_(p.grad + group["weight_decay"] * p, alpha=group["lr"])',
    "schedulers": "def It(total, power=1.0):\n    return lambda t, base: base * max(0.0, 1 - t / total) ** power\n",
    "losses": "import torch\nclass It(torch.nn.CrossEntropyLoss):\n    pass\n",
    "datasets": DATASET % "Sample(np.full((8, 8, 3), index, np.uint8), index % 2, str(index))",
    "transforms": TRANSFORM % "Picture(torch.flip(picture.tensor, (1,))) if rng.random() < 0.5 else picture",
    "loggers": "class It:\n    def __init__(self, folder, config): pass\n"
    "    def log(self, row): pass\n    def end(self, summary): pass\n",
    "trainers": "def It(config, *, resume=False, quiet=False): return {}\n",
    "commands": "import click\n@click.command()\ndef It(): pass\n",
    "health_checks": "def It():\n    yield 'ok', 'well'\n",
}
SPECS = {"commands": "CommandSpec", "health_checks": "HealthCheck"}


def component(kind: str, parts: str, check: str, words: str) -> Broken:
    noun = {"losses": "loss", "health_checks": "health-check"}.get(kind, kind[:-1])
    return Broken(one(kind, SPECS.get(kind, "ComponentSpec")), parts, f"{noun}:acme", check, words)


def model(body: str, check: str, words: str, **row: str) -> Broken:
    return Broken(*net(body, **row), "model:acme_net", check, words)


def plugin(source: str, check: str, words: str, parts: str = "It = 3\n") -> Broken:
    return Broken(source, parts, "plugin:acme", check, words)


TABLE = """
def __init__(self, img_size=32, **options):
    super().__init__(**options)
    self.pos_embed = nn.Parameter(torch.zeros(1, 8, img_size // 2, 1))
def forward_features(self, x):
    x = self.stem(x)
    rows = torch.nn.functional.interpolate(self.pos_embed, (x.shape[2], 1))
    return self.norm(self.stages(x + rows))
"""
WEIGHTS = "WeightSpec('acme', 'resnet18', url='acme://file.safetensors', license='{}')"
FETCH = """
@hookimpl
def imgzoo_fetch(uri, cache_dir):
    if uri.startswith("acme://"):
        import pathlib, torch
        from safetensors.torch import save_file
        path = pathlib.Path(cache_dir) / "acme.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"wrong": torch.zeros(3)}, path)
        return path
"""
BROKEN = {
    "exits in its constructor": model("def __init__(self, **options): sys.exit(0)", "forward_shape", "SystemExit: 0"),
    "panics in its constructor": model(
        "def __init__(self, **options): raise type('Panic', (BaseException,), {})('x')", "forward_shape", "Panic: x"
    ),
    "ignores global_pool": model(
        "def __init__(self, global_pool='avg', **options): super().__init__(**options)", "pool_is_used", "what 'avg'"
    ),
    "ignores drop_rate": model(
        "def __init__(self, drop_rate=0.0, **options): super().__init__(**options)", "dropout_drops", "changes nothing"
    ),
    "ignores drop_path_rate": model(
        "def __init__(self, drop_path_rate=0.0, **options): super().__init__(**options)",
        "rates_drop", "drop_path_rate is accepted and changes nothing",
    ),
    "ignores proj_drop_rate": model(
        "def __init__(self, proj_drop_rate=0.0, **options): super().__init__(**options)",
        "rates_drop", "proj_drop_rate is accepted and changes nothing",
    ),
    "holds a lambda": model(
        "def __init__(self, **options):\n    super().__init__(**options)\n    self.f = lambda x: x", "pickles", "pickle"
    ),
    "does not resize its table": model(TABLE, "tables_follow_the_size", "pos_embed"),
    "spares what is not there": model("no_decay = ('pos_embd',)", "no_decay_names_parameters", "'pos_embd'"),
    "names weights to spare that are not there": model(
        "def no_weight_decay(self): return {'gone'}", "no_decay_names_parameters", "gone"
    ),
    "declares a capability that is none": plugin(
        *(net("pass", capabilities="frozenset({'expert'})")[:1]), "capabilities_are_known", "'expert'", net("pass")[1]
    ),
    "has no catalog in its wheel": plugin(
        "@hookimpl\ndef imgzoo_models(): return Catalog.read(__package__)\n", "loads", "there is no folder"
    ),
    "reads an empty table": plugin(hook("losses"), "hooks_answer", "imgzoo_losses returns nothing"),
    "forgets the mark": plugin("def imgzoo_losses(): return []\n", "doctor_hooks", "imgzoo_losses is not marked"),
    "spells a hook wrong": plugin("@hookimpl\ndef imgzoo_loses(): return []\n", "doctor_hooks", "'imgzoo_loses'"),
    "names a module that is not there": plugin(
        hook("losses", "ComponentSpec('acme', 'acme_zoo.gone:It')"), "doctor_targets", "acme_zoo.gone"
    ),
    "names an attribute that is not there": component("losses", "x = 1\n", "target_loads", "'It'"),
    "names what dies as it is imported": component("loggers", "raise SystemExit(0)\n", "target_loads", "SystemExit"),
    "adds weights without a license": plugin(hook("weights", WEIGHTS.format("")), "licenses_stated", "states no SPDX"),
    "adds weights to a model that is not there": plugin(
        hook("weights", WEIGHTS.format("MIT").replace("resnet18", "resnot")), "doctor_names", "'resnot'"
    ),
    "has an old name for a model that is not there": plugin(
        *(net("pass", aliases="{'old_net': 'gone_net'}")[:1]), "doctor_names", "'gone_net'", net("pass")[1]
    ),
    "adds weights of another network": Broken(
        hook("weights", WEIGHTS.format("MIT")) + FETCH, "", "weights:resnet18.acme", "load_strictly", "does not fit"
    ),
    "brings an optimizer that is none": component(
        "optimizers", "def It(params, **options): return []\n", "updates_every_parameter", "no torch.optim.Optimizer"
    ),
    "brings an optimizer that does not move": component(
        "optimizers", OPTIMIZER % "pass", "updates_every_parameter", "leave '0.weight' as it was"
    ),
    "brings an optimizer with a rate of its own": component(
        "optimizers", OPTIMIZER % "p.sub_(p.grad, alpha=0.01)", "follows_the_learning_rate", "learning rate 0"
    ),
    "brings an optimizer with one rate for all": component(
        "optimizers", OPTIMIZER % "p.sub_(p.grad, alpha=self.param_groups[0]['lr'])", "follows_the_learning_rate",
        "goes with the others",
    ),
    "brings an optimizer that does not decay": component(
        "optimizers", OPTIMIZER % 'p.sub_(p.grad, alpha=group["lr"])', "follows_the_weight_decay", "the same weights"
    ),
    "brings an optimizer that writes its gradients": component(
        "optimizers",
        OPTIMIZER % "p.sub_(p.grad.add_(p, alpha=group['weight_decay']), alpha=group['lr'])",
        "leaves_the_gradients", "the gradient of '0.weight'",
    ),
    "brings an optimizer that forgets": component(
        "optimizers", OPTIMIZER % "p.sub_(p.grad, alpha=group['lr'] / (1 + self.steps))", "state_can_be_resumed", "goes"
    ),
    "brings a schedule of words": component(
        "schedulers", "def It(total): return lambda t, base: 'fast'\n", "gives_rates", "'fast'"
    ),
    "brings a schedule that is a list": component(
        "schedulers", "def It(total): return [0.1] * int(total)\n", "gives_rates", "no function of the update"
    ),
    "brings a schedule below zero": component(
        "schedulers", "def It(total): return lambda t, base: -base\n", "gives_rates", "no learning rate"
    ),
    "brings a schedule without a base": component(
        "schedulers", "def It(total): return lambda t, base: 0.1\n", "gives_rates", "the same for a base"
    ),
    "brings a loss of no target": component(
        "losses", "It = lambda: lambda output, target: output.square().mean()\n", "gives_a_scalar", "no difference"
    ),
    "brings a loss that writes into its outputs": component(
        "losses", "def It():\n    def loss(output, target):\n        output.data.mul_(2)\n        return "
        "torch.nn.functional.cross_entropy(output, target)\n    import torch\n    return loss\n", "gives_a_scalar",
        "writes into the outputs",
    ),
    "brings a loss an image": component(
        "losses", "import torch\nIt = lambda: torch.nn.CrossEntropyLoss(reduction='none')\n", "gives_a_scalar", "scalar"
    ),
    "brings a loss without a gradient": component(
        "losses", "import torch\nIt = lambda: lambda output, target: output.detach().mean()\n", "gives_a_scalar", "grad"
    ),
    "brings a dataset of pairs": component(
        "datasets", DATASET % "(np.zeros((8, 8, 3), np.uint8), 0)", "samples_are_images", "a tuple"
    ),
    "brings a dataset that hides a method": component(
        "datasets", SOUND["datasets"].replace("self.count,", "self.size, self.count,").replace("= int", "= 8, int"),
        "samples_are_images", "'size' is a method",
    ),
    "brings a dataset of more classes than names": component(
        "datasets", DATASET % "Sample(np.zeros((8, 8, 3), np.uint8), index, 'x')", "targets_are_classes", "2 classes"
    ),
    "brings a dataset that draws": component(
        "datasets", DATASET % "Sample(np.random.randint(0, 255, (8, 8, 3), np.uint8), 0, 'x')", "reads_alike_each_time",
        "another sample",
    ),
    "brings a transform of floats": component(
        "transforms", TRANSFORM % "Picture(picture.tensor / 255)", "gives_pixels", "float32"
    ),
    "brings a transform with chance of its own": component(
        "transforms", TRANSFORM % "Picture(picture.tensor.roll(int(torch.randint(9, ()))))", "draws_from_its_generator",
        "equal generators",
    ),
    "brings a transform that writes into its picture": component(
        "transforms", TRANSFORM % "Picture(picture.tensor.zero_())", "leaves_its_input_alone", "into the picture"
    ),
    "brings a transform of lambdas": component(
        "transforms", "It = lambda: lambda picture, rng, config: picture\n", "reaches_workers", "pickle"
    ),
    "brings a logger without rows": component(
        "loggers", "class It:\n    def __init__(self, folder, config): pass\n", "takes_rows", "no log()"
    ),
    "brings a trainer of other arguments": component(
        "trainers", "def It(path): pass\n", "takes_a_configuration", "cannot be called"
    ),
    "brings a command that is none": component("commands", "def It(): pass\n", "is_a_command", "no click command"),
    "brings a check without levels": component(
        "health_checks", "def It():\n    yield 'all is well'\n", "yields_findings", "'all is well'"
    ),
}  # fmt: skip
