"""Merge the reference facts of one family into the catalog and the tests of the package that brings it.

    python tools/import_facts.py REFERENCE_DIR FAMILY [--only NAME,NAME] [--packages DIR] [--target pkg.mod:Class]

Weights, deprecated names and published results come from the facts; constructor options that stand in the catalog stay.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from imgzoo.catalog import check, expanded, format_catalog, format_results
from imgzoo.catalog.write import hoisted
from imgzoo.licenses import spdx
from imgzoo.testing.facts import Facts as Structure
from imgzoo.testing.facts import format_facts

Facts = dict[str, Any]

SIZES = ("input_size", "test_input_size", "min_input_size", "fixed_input_size")
CELLS = (*SIZES, "interpolation", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std", "num_classes", "origin_url")
OWN_CELLS = ("sha256", "kwargs", "label_offset", "format", "hf_hub_filename")  # cells that facts do not know
SCORES = {"imagenet": "imagenet", "imagenet_real": "real", "imagenet_a": "a", "imagenet_r": "r", "imagenetv2": "v2"}
SCORES["sketch"] = "sketch"
CORRECTED = {  # old names that the reference points at tags that do not exist, or at another network than they name
    "vit_base_patch16_224_sam": "vit_base_patch16_224.sam_in1k",
    "vit_base_patch32_224_sam": "vit_base_patch32_224.sam_in1k",
    "ig_resnext101_32x16d": "resnext101_32x16d.fb_wsl_ig1b_ft_in1k",
    "ig_resnext101_32x32d": "resnext101_32x32d.fb_wsl_ig1b_ft_in1k",
}

# the reference counts placeholders of what these compute as they run
MISCOUNTED = {name: {"buffers": 0} for name in ("convit_base", "convit_small", "convit_tiny")}

# and keeps the colors of CSATv2's images in other buffers, and the order of its frequencies in none
MISCOUNTED |= {name: {"buffers": 588} for name in ("csatv2", "csatv2_21m")}

# the reference names the levels of these as if their encoder stood alone
UNDER = {name: "encoder." for name in ("gemma4_vit_167m", "gemma4_vit_570m")}

# the reference says that TResNet's first level is halved once and leaves it without a name; it is the stem's, at 1/4
TRESNET_STEM = (4, "body.conv1")

# and names levels otherwise than the modules whose outputs they are
RENAMED = {"twins": {"block": "blocks"}, "mvitv2": {"block": "stages"}, "mobilenetv5": {"bn1": "conv_stem"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path, help="folder that holds families/, models.csv, deprecated.json")
    parser.add_argument("family", help="name of the family file, as convnext")
    parser.add_argument("--only", default="", help="import these names only, comma separated")
    parser.add_argument("--packages", type=Path, default=Path(__file__).parents[1] / "packages")
    parser.add_argument("--target", default="", help="constructor of a family that has no catalog yet")
    args = parser.parse_args()

    facts: Facts = json.loads((args.reference / "families" / f"{args.family}.json").read_text())
    with open(args.reference / "models.csv", newline="") as file:
        package = next(row["package"] for row in csv.DictReader(file) if row["module"] == args.family)
    module = f"imgzoo_{package.replace('-', '_')}"
    catalog_path = args.packages / package / "src" / module / "catalog" / f"{args.family}.json"
    old: Facts = read(catalog_path) or {"family": args.family, "models": {}}
    old["models"] = dict(expanded(old["models"]))
    wanted = set(args.only.split(",")) if args.only else set(facts)
    if unknown := wanted - set(facts):
        parser.error(f"{args.family} has no {', '.join(sorted(unknown))}")
    names = [name for name in facts if name in wanted or name in old["models"]]

    classes = Counter(row["model_class"] for row in facts.values())
    guess = f"{module}.{args.family}:{classes.most_common(1)[0][0]}"
    deprecated = json.loads((args.reference / "deprecated.json").read_text())
    catalog = merged(old, facts, names, deprecated)
    catalog["target"] = args.target or old.get("target") or guess
    write(catalog_path, format_catalog(catalog))
    write(catalog_path.parent / "results" / f"{args.family}.json", format_results(results(facts, names)))
    write(args.packages / package / "tests" / "facts" / f"{args.family}.json", structure(args.family, facts, names))
    for problem in check(catalog):
        print(f"{catalog_path.name}: {problem}")


def read(path: Path) -> Facts | None:
    return json.loads(path.read_text()) if path.exists() else None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    print(f"{path}: {len(text.splitlines())} lines")


def published(row: Facts) -> bool:
    return bool(row.get("url") or row.get("hf_hub_id"))


def weight_rows(model: Facts) -> dict[str, Facts]:
    """Published weights, default first; the unpublished recipe only where there is nothing else."""
    tags = [model["default_tag"], *model["weights"]]
    rows = {tag: model["weights"][tag] for tag in tags if tag in model["weights"] and published(model["weights"][tag])}
    if rows:
        return rows
    return {"untrained": model["weights"][model["default_tag"]]}


def cells(name: str, tag: str, row: Facts) -> Facts:
    """A weight row of the facts in the words of the catalog."""
    out = {key: row[key] for key in CELLS if row.get(key) is not None}
    hub = row.get("hf_hub_id") or ""
    out["hf_hub_id"] = f"timm/{name}.{tag}" if hub == "timm/" else hub
    if not hub and row.get("url"):
        out["url"] = row["url"]
    if published(row):
        out["license"] = spdx(row.get("license") or "unknown")
    if row.get("paper_ids"):
        out["paper"] = row["paper_ids"].removeprefix("arXiv:")
    return out


def merged(old: Facts, facts: Facts, names: list[str], deprecated: dict[str, str]) -> Facts:
    """The family's catalog with weights and aliases of the facts and the model options it had."""
    full = {
        name: {tag: cells(name, tag, row) for tag, row in weight_rows(model).items()} for name, model in facts.items()
    }
    kept = {key: value for key, value in old.get("defaults", {}).items() if key in OWN_CELLS}
    shared = hoisted([row for rows in full.values() for row in rows.values()], {"paper": old.get("paper", "")}) | kept
    models = {}
    for name in names:
        before = old["models"].get(name, {})
        row = {key: value for key, value in before.items() if key not in ("weights", "defaults")}
        own = {key: value for key, value in before.get("defaults", {}).items() if key in OWN_CELLS}
        base = {"paper": before.get("paper", old.get("paper", "")), **shared}
        if len(full[name]) > 1:
            own = hoisted(full[name].values(), base) | own
        if own:
            row["defaults"] = own
        row["weights"] = {
            tag: explicit(weight, shared | own) | own_cells(before, tag) for tag, weight in full[name].items()
        }
        models[name] = row
    for name, row in old["models"].items():  # models that the facts do not know keep what they had
        if name not in facts:
            models[name] = row | {"defaults": {**old.get("defaults", {}), **row.get("defaults", {})}}
    aliases = dict(old.get("aliases", {}))
    for alias, new in deprecated.items():
        new = CORRECTED.get(alias, new)
        if new.partition(".")[0] in names:
            aliases[alias] = new
    return {**old, "defaults": shared, "aliases": aliases, "models": models}


def own_cells(before: Facts, tag: str) -> Facts:
    return {key: value for key, value in before.get("weights", {}).get(tag, {}).items() if key in OWN_CELLS}


def explicit(weight: Facts, inherited: Facts) -> Facts:
    """The row with every inherited cell that it does not have set back to the field's default."""
    from imgzoo.specs import WeightSpec

    defaults = {**WeightSpec._field_defaults, "normalize": "imagenet"}
    absent = {key: defaults[key] for key in inherited if key not in (*weight, *OWN_CELLS, "license")}
    if "mean" in weight:
        absent.pop("normalize", None)
    return {**absent, **weight}


def results(facts: Facts, names: list[str]) -> Facts:
    """Parameters, costs as [size, GMACs, million activations] and published scores of each model."""
    out = {}
    for name in names:
        model = facts[name]
        row: Facts = {"params": model["params"]}
        if model.get("cost"):
            row["cost"] = [[cost["img_size"], cost["gmacs"], cost["macts"]] for cost in model["cost"]]
        scores = {
            tag: {
                SCORES[key]: [score[part] for part in ("top1", "top5", "img_size", "crop_pct", "interpolation")]
                for key, score in weight["results"].items()
            }
            for tag, weight in weight_rows(model).items()
            if weight.get("results")
        }
        if scores:
            row["weights"] = scores
        out[name] = row
    return out


def structure(family: str, facts: Facts, names: list[str]) -> str:
    """Facts for the key contract, one model a line."""
    counted = {name: {**facts[name], **MISCOUNTED.get(name, {})} for name in names}
    for name, row in counted.items():
        levels = [level if level[2] else [level[0], *TRESNET_STEM] for level in row["features"]]
        levels = [[*level[:2], UNDER.get(name, "") + level[2]] for level in levels]
        row["features"] = [[*level[:2], renamed(level[2], RENAMED.get(family, {}))] for level in levels]
    return format_facts({name: [counted[name][key] for key in Structure._fields] for name in names})


def renamed(module: str, names: dict[str, str]) -> str:
    """The path with another first name, where it has one."""
    first, dot, rest = module.partition(".")
    return names.get(first, first) + dot + rest


if __name__ == "__main__":
    main()
