"""A model card for a run, and its upload to the hub."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from imgzoo.errors import MissingDependencyError, OfflineError, UsageError
from imgzoo.text import counted, first_line
from imgzoo_train.config.settings import Config
from imgzoo_train.files.storage import replace_text

from .folder import RunFolder


def model_card(run: RunFolder) -> str:
    """The card as Markdown: what it is, how well it does, how it was made, and under which license."""
    stored = json.loads((run.best / "config.json").read_text(encoding="utf-8"))
    config = Config.load(run.config_file)
    environment = json.loads((run.path / "environment.json").read_text(encoding="utf-8"))
    cfg = stored.get("pretrained_cfg", {})
    license = str(cfg.get("license") or "")
    own = stored.get("imgzoo", {}).get("model_args", {})
    parent = config.model.pretrained if config.model.pretrained not in ("", "false") else ""
    front: dict[str, Any] = {
        "library_name": "imgzoo",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "imgzoo", *(() if own else ("timm",))],
    }
    if license:
        front["license"] = "other" if license.startswith("LicenseRef") else license.lower()
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {plain(stored['architecture'])} on {plain(config.data.source)}", ""]
    lines += ["| metric | value |", "|---|---|"]
    figures = {name: math.nan if value is None else value for name, value in stored.get("metrics", {}).items()}
    lines += [f"| {plain(name)} | {value:.4g} |" for name, value in figures.items()]
    size = "x".join(str(side) for side in cfg.get("input_size", ()))
    names = stored.get("label_names") or []
    origin = f"weights `{plain(parent)}`" if parent else "random weights"
    lines += ["", "## What it is", "", f"- Architecture: `{plain(stored['architecture'])}`, input {size}"]
    lines += [f"- Started from {origin}", f"- License: {plain(license) or 'not stated'}"]
    if parent and not license:
        lines.append("- The weights it started from state no license: clear that before you share this model")
    lines += [f"- Data: `{plain(config.data.source)}`, {counted(len(names) or stored['num_classes'], 'class')}"]
    if names:
        shown = ", ".join(plain(str(name)) for name in names[:20])
        lines.append(f"- Classes: {shown}{', ...' if len(names) > 20 else ''}")
    lines += ["", "## Use it", "", "```", "imgzoo predict photo.jpg --model hf-hub:ORG/NAME", "```"]
    if own:
        told = ", ".join(plain(f"{key}={value}") for key, value in own.items())
        lines += ["", f"timm has no words for what makes this network another ({told}): there it would answer wrongly."]
    lines += ["", "## How it was made", "", "```toml", config.dump().replace("```", "'''"), "```", ""]
    lines += [f"torch {plain(environment['torch'])}, Python {plain(environment['python'])}", ""]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text from outside as one line of Markdown without markup."""
    text = "".join(character if character.isprintable() else " " for character in text)
    for mark in "\\`*_[]|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("<", "&lt;").replace(">", "&gt;")


def push(folder: Path, repo: str, *, private: bool = False, token: str | None = None) -> str:
    """Write the card into `best/` and upload that folder; returns the address.

    Raises `OfflineError` when offline, `UsageError` for a folder without a finished model.
    """
    write_card(folder)
    if os.environ.get("IMGZOO_OFFLINE", "") not in ("", "0"):
        raise OfflineError("IMGZOO_OFFLINE is set, so nothing is uploaded; unset it, or use --card-only")
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingDependencyError("uploading needs huggingface_hub: pip install huggingface_hub") from error
    api: Any = HfApi(token=token)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=str(RunFolder(folder).best), commit_message="Add model")
    except (HfHubHTTPError, ValueError, OSError) as error:
        raise UsageError(f"the hub did not take {repo}: {first_line(error)}") from error
    return str(done)


def write_card(folder: Path) -> Path:
    """Write `README.md` into the run's `best/`; returns its path."""
    run = RunFolder(folder)
    if not (run.best / "config.json").is_file():
        raise UsageError(f"'{folder}' holds no finished model: there is no best/config.json in it")
    path = run.best / "README.md"
    replace_text(path, model_card(run))
    return path
