"""Folders and repositories of the hub."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch

import imgzoo
from imgzoo.errors import UsageError, WeightsError
from imgzoo.loading.files import read_state
from imgzoo.loading.places import fetch_config, hub_file, hub_weights
from imgzoo.text import escaped

from ._factory import no_cache_dir

__all__ = [
    "has_hf_hub",
    "hf_split",
    "load_cfg_from_json",
    "load_model_config_from_hf",
    "load_model_config_from_path",
    "load_state_dict_from_hf",
    "load_state_dict_from_path",
    "push_to_hf_hub",
    "save_for_hf",
]  # fmt: skip


log = logging.getLogger(__name__)


class NoWeightsError(WeightsError, FileNotFoundError, RuntimeError):
    """A folder without a weight file."""


def has_hf_hub(necessary: bool = False) -> bool:
    return True  # imgzoo depends on it


def hf_split(hf_id: str) -> tuple[str, str | None]:
    """`org/repo@rev` in two."""
    name, _, revision = hf_id.partition("@")
    return name, revision or None


def load_model_config_from_hf(model_id: str, cache_dir: Any = None) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """What a repository says: its configuration, the architecture, and options of the constructor."""
    no_cache_dir(cache_dir)
    config = fetch_config(f"hf-hub:{model_id}")
    stored = dict(config.get("pretrained_cfg") or config)
    stored |= {"hf_hub_id": model_id, "source": "hf-hub"}
    stored |= {key: config[key] for key in ("num_classes", "label_names") if key in config}
    return stored, config.get("architecture") or stored.get("architecture", ""), dict(config.get("model_args") or {})


def load_state_dict_from_hf(model_id: str, filename: str = "pytorch_model.bin", weights_only: bool = True,
                            cache_dir: Any = None) -> dict[str, torch.Tensor]:  # fmt: skip
    """The tensors of a repository, from safetensors where it has them; nothing in a file is ever run."""
    no_cache_dir(cache_dir)
    path = hub_weights(model_id) if filename == "pytorch_model.bin" else hub_file(model_id, filename)
    return read_state(path)  # type: ignore[arg-type]


def load_cfg_from_json(json_file: str | Path) -> dict[str, Any]:
    return json.loads(Path(json_file).read_text(encoding="utf-8"))


def load_model_config_from_path(model_path: str | Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """What `config.json` of a folder says, as `load_model_config_from_hf` has it."""
    config = load_cfg_from_json(Path(model_path) / "config.json")
    stored = dict(config.get("pretrained_cfg") or config)
    stored |= {"file": str(model_path), "source": "local-dir"}
    stored |= {key: config[key] for key in ("num_classes", "label_names") if key in config}
    return stored, config.get("architecture") or stored.get("architecture", ""), dict(config.get("model_args") or {})


DROPS = re.compile(r"(^|_)drop_(path_|block_)?rate$")
"""Options of training alone, which a folder of the field does not hold unless they are asked for."""
OF_THE_MODEL = {"in_chans", "num_classes", "img_size", "global_pool"}
TESTED = {"test_input_size", "test_crop_pct"}
PREFERRED = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
ENDINGS = (".safetensors", ".pth", ".pth.tar", ".bin")
"""Which file of a folder has the weights: by its name, then by its ending."""


def load_state_dict_from_path(path: str | Path, weights_only: bool = True) -> dict[str, torch.Tensor]:
    """The tensors of a folder: of the file that the hub's layout names, else from safetensors where it has them."""
    folder = Path(path)
    by_ending = next(filter(None, (sorted(folder.glob(f"*{ending}")) for ending in ENDINGS)), [])
    found = [folder / name for name in PREFERRED if (folder / name).is_file()] or by_ending
    if not found:
        raise NoWeightsError(f"{folder} has no weight file: No suitable checkpoints ({', '.join(ENDINGS)})")
    if len(by_ending) > 1 and found is by_ending:
        log.warning("%s is read, of %s", escaped(found[0].name), escaped(", ".join(each.name for each in found)))
    return read_state(found[0])  # type: ignore[arg-type]


def save_for_hf(model: Any, save_directory: str | Path, model_config: dict[str, Any] | None = None,
                model_args: dict[str, Any] | None = None, safe_serialization: Any = False,
                data_config: dict[str, Any] | None = None) -> None:  # fmt: skip
    """A folder in the hub's layout, by `imgzoo.save_model`: safetensors, and `pytorch_model.bin` beside it unless
    `safe_serialization` is true; `model_args` are added to the options that are stored, `model_config` to the rest.
    `data_config` says how images were prepared: what is stored of other sizes for tests goes unless it says that, too.

    Raises:
        UsageError: `model_args` say what the model is not.
    """
    from ._input import get_model_args

    told = dict(model_config or {})
    said = {**told.pop("model_args", {}), **(model_args or {})}
    told |= {key: value for key, value in said.items() if key == "num_classes"}
    now = get_model_args(model)
    for key, value in {**said, **told}.items():
        if key in OF_THE_MODEL and plain(value) != plain(now.get(key)):
            raise UsageError(f"{key}={value!r} disagrees with the current model, where it is {now.get(key)!r}")
    imgzoo.save_model(model, save_directory, class_names=told.pop("label_names", None))
    path = Path(save_directory, "config.json")
    config = load_cfg_from_json(path)
    if data_config:
        stale = TESTED - data_config.keys()
        kept = {key: value for key, value in config["pretrained_cfg"].items() if key not in stale}
        config["pretrained_cfg"] = {**kept, **data_config}
    for table in (config, config["imgzoo"]):
        kept = {key: value for key, value in table.get("model_args", {}).items() if not DROPS.search(key)}
        table["model_args"] = {**kept, **(said if table is config else {})}
    path.write_text(json.dumps({**told, **config}, indent=2), encoding="utf-8")
    if safe_serialization is False or safe_serialization == "both":
        torch.save(model.state_dict(), Path(save_directory, "pytorch_model.bin"))


def plain(value: Any) -> Any:
    """As a file would hold it."""
    return list(value) if isinstance(value, tuple) else value


def push_to_hf_hub(model: Any, repo_id: str, commit_message: str = "Add model", token: str | None = None,
                   revision: str | None = None, private: bool = False, create_pr: bool = False,
                   model_config: Any = None, model_card: Any = None, model_args: Any = None,
                   task_name: str = "image-classification", safe_serialization: Any = "both",
                   data_config: Any = None) -> str:  # fmt: skip
    """Said, not done: `imgzoo push` writes the card and uploads."""
    raise UsageError(f"save the model with save_for_hf and upload it: imgzoo push FOLDER {repo_id}")
