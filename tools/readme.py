"""Write the generated parts of the README and of docs/: `python tools/readme.py [--check]`."""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
import sys
import textwrap
import tokenize
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from imgzoo.licenses import is_permissive
from imgzoo.registry import registry

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
from rows import Row, markdown, matrix, read  # noqa: E402

RESULTS = ROOT / "benchmarks/results.json"
DIFFERENCES = ROOT / "docs/differences.json"
PAGES = (ROOT / "README.md", ROOT / "docs/families.md", ROOT / "docs/benchmarks.md", ROOT / "docs/layers.md",
         *sorted(ROOT.glob("packages/archs-*/README.md")))  # fmt: skip
NETWORKS = ("archs-cnn", "archs-efficientnet", "archs-transformer")
NOUNS = {"schedulers": "schedules", "transforms": "steps of transforms", "datasets": "kinds of data sources"}
PROMISED = {"compile": "compile", "export": "export by `torch.export`", "onnx": "export to ONNX and run in onnxruntime",
            "script": "script"}  # fmt: skip
"""Capability -> what it lets a network do."""
PEER_LINES = {  # lines of the peer's installed file of the same name (wc -l; version 1.0.31)
    "beit": 1172,
    "byoanet": 482,
    "byobnet": 3218,
    "cait": 644,
    "coat": 990,
    "convit": 566,
    "convmixer": 230,
    "convnext": 1450,
    "cpubone": 1189,
    "crossvit": 763,
    "csatv2": 900,
    "cspnet": 1300,
    "cspnext": 558,
    "davit": 962,
    "deepseek_vit": 794,
    "deit": 429,
    "densenet": 650,
    "dla": 690,
    "dpn": 429,
    "edgenext": 717,
    "efficientformer": 709,
    "efficientformer_v2": 969,
    "efficientnet": 3005,
    "efficientvim": 1038,
    "efficientvit_mit": 1321,
    "efficientvit_msra": 923,
    "eva": 3543,
    "fasternet": 523,
    "fastvit": 1830,
    "focalnet": 754,
    "gcvit": 697,
    "gemma4_vit": 1510,
    "ghostnet": 1040,
    "hardcorenas": 162,
    "hgnet": 890,
    "hiera": 1063,
    "hieradet_sam2": 722,
    "hrnet": 1150,
    "iformer": 994,
    "inception_next": 567,
    "inception_resnet_v2": 479,
    "inception_v3": 605,
    "inception_v4": 458,
    "lcnetv2": 503,
    "levit": 1177,
    "lowformer": 887,
    "mambaout": 764,
    "maxxvit": 2887,
    "metaformer": 1219,
    "mlp_mixer": 894,
    "mobilenetv3": 1553,
    "mobilenetv5": 960,
    "mobilevit": 710,
    "mvitv2": 1169,
    "naflexvit": 2587,
    "nasnet": 843,
    "nest": 709,
    "nextvit": 836,
    "nfnet": 1281,
    "pit": 565,
    "pnasnet": 577,
    "pvt_v2": 601,
    "qwen3_vit": 858,
    "rdnet": 583,
    "regnet": 1500,
    "repghost": 601,
    "repvit": 709,
    "res2net": 250,
    "resnest": 279,
    "resnet": 2303,
    "resnetv2": 1214,
    "rexnet": 616,
    "selecsls": 504,
    "senet": 631,
    "sequencer": 659,
    "shvit": 581,
    "sknet": 270,
    "starnet": 373,
    "swiftformer": 660,
    "swin_transformer": 1417,
    "swin_transformer_v2": 1385,
    "swin_transformer_v2_cr": 1358,
    "tiny_vit": 898,
    "tnt": 595,
    "tresnet": 452,
    "twins": 649,
    "vgg": 519,
    "visformer": 707,
    "vision_transformer": 5308,
    "vision_transformer_hybrid": 461,
    "vision_transformer_relpos": 799,
    "vision_transformer_sam": 796,
    "vitamin": 632,
    "volo": 1425,
    "vovnet": 571,
    "xception": 410,
    "xception_aligned": 622,
    "xcit": 1095,
}


def families() -> str:
    """Families, names and published weights of each package."""
    names: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    groups: dict[str, set[str]] = {}
    for spec in registry("models").specs():
        if spec.plugin.startswith("archs-"):
            names[spec.plugin] += 1
            tags[spec.plugin] += sum(weights.published for weights in spec.weights)
            groups.setdefault(spec.plugin, set()).add(spec.family)
    rows = ["| package | families | names | weights |", "|---|---|---|---|"]
    rows += [
        f"| {plugin} | {', '.join(sorted(found))} | {names[plugin]} | {tags[plugin]} |"
        for plugin, found in sorted(groups.items())
    ]
    return "\n".join([*rows, f"| all | {sum(map(len, groups.values()))} | {names.total()} | {tags.total()} |"])


def families_of(plugin: str) -> str:
    """Families, names and published weights of one package, in a sentence."""
    specs = [spec for spec in registry("models").specs() if spec.plugin == plugin]
    tags = sum(weights.published for spec in specs for weights in spec.weights)
    found = sorted({spec.family for spec in specs})
    told = f"{len(found)} families, {len(specs)} names, {tags} published weights: {', '.join(found)}."
    return textwrap.fill(told, 120)


def counts() -> str:
    """How much there is, and how much of it carries which promise."""
    specs = [spec for spec in registry("models").specs() if spec.plugin.startswith("archs-")]
    weights = [each for spec in specs for each in spec.weights if each.published]
    able = Counter(each for spec in specs for each in spec.capabilities)
    rows = [("families, names", f"{len({spec.family for spec in specs})}, {len(specs):,}")]
    rows += [("published weights they load", f"{len(weights):,}")]
    rows += [("of these under a permissive license", f"{sum(is_permissive(each.license) for each in weights):,}")]
    for kind in ("optimizers", "schedulers", "losses", "transforms", "datasets", "commands"):
        rows.append((NOUNS.get(kind, kind), f"{len(registry(kind).specs()):,}"))
    for capability, told in PROMISED.items():
        rows.append((f"names that {told}", f"{able[capability]:,}"))
    return "\n".join(["| what | how many |", "|---|---|", *(f"| {what} | {number} |" for what, number in rows)])


def count(path: Path) -> tuple[int, int]:
    """Lines and tokens of a file, comments and blank lines among the lines."""
    text = path.read_text()
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = sum(token.type not in skip for token in tokenize.generate_tokens(io.StringIO(text).readline))
    return len(text.splitlines()), tokens


def sizes() -> str:
    """Lines and tokens of each family, its rows, how far it is from the peer, and what all its networks can."""
    rows = [
        "| family | lines | tokens | names | weights | lines of the peer's file | worst difference | capabilities |",
        "|---|---|---|---|---|---|---|---|",
    ]
    specs = registry("models").specs()
    worst = json.loads(DIFFERENCES.read_text()) if DIFFERENCES.is_file() else {}
    for path in sorted(ROOT.glob("packages/archs-*/src/*/catalog/*.json")):
        own = [spec for spec in specs if spec.family == path.stem and spec.plugin.startswith("archs-")]
        file = path.parents[1] / f"{path.stem}.py"
        lines, tokens = count(file) if file.is_file() else ("rows only", "")
        weights = sum(row.published for spec in own for row in spec.weights)
        peer = PEER_LINES.get(path.stem, "")
        able = ", ".join(sorted(set.intersection(*(set(spec.capabilities) for spec in own))))
        gap = f"{worst[path.stem]:.0e}" if path.stem in worst else "-"
        cells = (path.stem, lines, tokens, len(own), weights, peer, gap, able)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


def measured() -> list[Row]:
    return read(RESULTS) if RESULTS.is_file() else []


def bench() -> str:
    """The headline rows, and the machine."""
    if not measured():
        return "Run `python -m nox -s bench`."
    heads = [row for row in measured() if row.headline]
    ran: dict[str, list[str]] = {}
    for part in dict.fromkeys(row.part for row in heads):
        machine, time = circumstances(part)
        ran.setdefault(machine, []).append(f"{part} {time}")
    return f"{markdown(heads)}\n\n" + "\n".join(f"- Measured on {each}: {', '.join(ran[each])}." for each in ran)


def circumstances(part: str) -> tuple[str, str]:
    """On what, and when and at which commit a benchmark ran."""
    ran = json.loads((ROOT / "benchmarks/measured.json").read_text())[part]
    machine = f"{ran['cores']} cores of {ran['cpu']}, torch {ran['torch']}"
    return machine, f"{ran['date']} at `{ran['commit']}`"


def results() -> str:
    """All rows, a section each benchmark."""
    parts = []
    for part, group in groupby(measured(), key=lambda row: row.part):
        parts.append(f"## {part}\n\nMeasured on {', '.join(circumstances(part))}.")
        rows = list(group)
        if part == "families":  # too many for a line each
            rows, networks = split(rows)
            parts += [markdown(rows), matrix(networks)]
        else:
            parts.append(markdown(rows))
    return "\n\n".join(parts) or "Run `python -m nox -s bench`."


def split(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """The means, and what they are over."""
    found: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        found[not row.target.startswith("mean")].append(row)
    return found


def layers() -> str:
    """Every public name of imgzoo_layers with the first line about it, by module."""
    import imgzoo_layers

    parts = []
    for name in sorted({path.stem for path in Path(imgzoo_layers.__path__[0]).glob("[a-z]*.py")}):
        module = importlib.import_module(f"imgzoo_layers.{name}")
        public = [key for key in vars(module) if getattr(imgzoo_layers, key, None) is vars(module)[key]]
        own = [key for key in public if getattr(vars(module)[key], "__module__", "") == module.__name__]
        if own:
            lines = [f"- `{key}`: {said(vars(module)[key])}" for key in own]
            parts.append("\n".join([f"## {name}", "", said(module), "", *lines]))
    return "\n\n".join(parts)


def said(thing: Any) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


BLOCKS = {
    "layers": layers,
    "families": families,
    "counts": counts,
    "sizes": sizes,
    "bench": bench,
    "results": results,
    **{
        f"families-of-{name}": partial(families_of, name)
        for name in ("archs-cnn", "archs-transformer", "archs-efficientnet")
    },
}


def fill(text: str) -> str:
    """Replace what stands between `<!-- generated: NAME -->` and `<!-- end -->`."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- generated: {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def main(check: bool) -> int:
    stale = []
    for path in PAGES:
        text = path.read_text()
        new = fill(text)
        if new != text:
            stale.append(path.name)
            if not check:
                path.write_text(new)
    if stale and check:
        print(f"{', '.join(stale)}: generated parts are stale; run python tools/readme.py")
    return int(bool(stale) and check)


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv))
