"""What a plugin brings is reached by its full name, with its options, wherever it is used; its faults stay its own."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import imgzoo
from imgzoo.discovery import manager
from imgzoo.discovery.manager import Manager
from imgzoo.errors import OfflineError, WeightsError
from imgzoo.loading import save_model
from imgzoo.plugin import ComponentSpec, ModelSpec, WeightSpec, hookimpl
from imgzoo_data import create_dataset, create_transform
from imgzoo_data.sources.base import Sample, Source

NET = "imgzoo_archs_cnn.resnet:ResNet"
SMALL = {"block": "basic", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}


class Dots(Source):
    """`acme/dots:COUNT?shade=N`: images of one shade."""

    def __init__(self, location: str, split: str = "train", shade: int = 0) -> None:
        self.count, self.shade, self.class_names = int(location), shade, ["dot"]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return Sample(np.full((8, 8, 3), self.shade, np.uint8), 0, str(index))


class Shade:
    def __init__(self, by: int = 0) -> None:
        self.by = by

    def __call__(self, image: np.ndarray, *_: object) -> np.ndarray:
        return image


class Acme:
    """A plugin that is told what to do."""

    def __init__(self, **answers: object) -> None:
        self.answers = answers

    @hookimpl
    def imgzoo_datasets(self) -> list[ComponentSpec]:
        return [ComponentSpec("dots", f"{__name__}:Dots", {"shade": 7})]

    @hookimpl
    def imgzoo_transforms(self) -> list[ComponentSpec]:
        return [ComponentSpec("my-shade", f"{__name__}:Shade", {"by": 3})]

    @hookimpl
    def imgzoo_trainers(self) -> list[ComponentSpec]:
        return [ComponentSpec("counting", f"{__name__}:counting", {"start": 5})]

    @hookimpl
    def imgzoo_models(self) -> list[ModelSpec]:
        file = WeightSpec("v1", "acme_net", url="acme://weights/v1.safetensors", license="MIT", **self.answers)
        return [ModelSpec("acme_net", NET, dict(SMALL), (file,))]


def counting(config: object, start: int = 0, **options: object) -> int:
    return start


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """Registers a plugin object for one test."""
    monkeypatch.setenv("IMGZOO_CACHE", str(tmp_path / "cache"))
    for switch in ("IMGZOO_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(switch, raising=False)
    before = manager.set_manager(Manager())
    yield lambda plugin: imgzoo.register(plugin, "acme")
    manager.set_manager(before)


def test_a_dataset_is_reached_by_both_its_names_with_its_options(acme):
    acme(Acme())
    for source, shade in (("dots:2", 7), ("acme/dots:2", 7), ("acme/dots:2?shade=9", 9)):
        opened = create_dataset(source)
        assert len(opened) == 2 and opened[0].data[0, 0, 0] == shade


def test_a_transform_is_reached_by_both_its_names_with_its_options(acme):
    acme(Acme())
    for row, by in (("my-shade", 3), ("acme/my-shade()", 3), ("acme/my-shade(by=4)", 4)):
        transform = create_transform({"input_size": (3, 8, 8)}, training=True, row=f"rrc | {row}")
        assert [step.by for step in transform.steps if isinstance(step, Shade)] == [by], row


def test_a_trainer_gets_its_options(acme):
    from imgzoo_train import Config
    from imgzoo_train.runs.trainers import trainer

    acme(Acme())
    for name in ("counting", "acme/counting"):
        config = Config()
        config.run.trainer = name
        assert trainer(config)(config) == 5


def weights_file(tmp_path: Path) -> Path:
    model = imgzoo.create_model("resnet18", num_classes=1000, **SMALL)
    return save_model(model, tmp_path / "saved") / "model.safetensors"


def test_a_catalog_address_is_fetched_by_the_plugin_that_knows_it_also_later_without_a_network(
    acme, tmp_path, monkeypatch
):
    file = weights_file(tmp_path)
    asked = []

    class Fetching(Acme):
        @hookimpl
        def imgzoo_fetch(self, uri: str, cache_dir: Path) -> Path | None:
            asked.append(uri)
            return file if uri.startswith("acme://") else None

    acme(Fetching(sha256=hashlib.sha256(file.read_bytes()).hexdigest()))
    model = imgzoo.create_model("acme_net", pretrained=True)
    assert asked == ["acme://weights/v1.safetensors"] and model.load_report.file == str(file)
    monkeypatch.setenv("IMGZOO_OFFLINE", "1")
    imgzoo.create_model("acme_net", pretrained=True)
    assert len(asked) == 1
    with pytest.raises(OfflineError):
        imgzoo.create_model("resnet18", pretrained="acme://other.safetensors")
    monkeypatch.delenv("IMGZOO_OFFLINE")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="sha256"):
        imgzoo.create_model("acme_net", pretrained=True)


@pytest.mark.parametrize("answer", ["raise RuntimeError('no bucket')", "return '/there/is/nothing'", "return 3"])
def test_a_fetch_that_fails_is_told_by_plugin(acme, answer):
    body: dict[str, object] = {}
    exec(f"def imgzoo_fetch(self, uri, cache_dir):\n    {answer}", body)
    acme(type("Failing", (Acme,), {"imgzoo_fetch": hookimpl(body["imgzoo_fetch"])})())
    with pytest.raises(WeightsError, match="plugin acme"):
        imgzoo.create_model("acme_net", pretrained=True)


def test_an_address_is_not_taken_for_a_repository_of_somebody_else(acme):
    acme(Acme())
    assert imgzoo.get_spec("acme_net").weights[0].hf_hub_id == ""
    from imgzoo.catalog import weight_spec

    assert weight_spec("net", "t", {"url": "https://example.org/net.pth"}).hf_hub_id == ""
    assert weight_spec("net", "t", {}).hf_hub_id == "timm/net.t"


class Panic(BaseException):
    pass


@pytest.mark.parametrize("kind", [RuntimeError, Panic, SystemExit])
def test_a_fault_after_creation_is_logged_by_plugin_and_the_model_is_there(acme, caplog, kind):
    class Failing(Acme):
        @hookimpl
        def imgzoo_model_created(self, model: object) -> None:
            raise kind("broken")

    acme(Failing())
    with caplog.at_level(logging.WARNING, "imgzoo"):
        assert imgzoo.create_model("resnet18", **SMALL).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)
    assert "plugin acme failed at imgzoo_model_created" in caplog.text


@pytest.mark.parametrize("kind", [RuntimeError, Panic])
def test_a_fault_in_run_events_costs_no_checkpoint(acme, tmp_path, kind):
    from imgzoo_train.cli.train import command

    seen = []

    class Following(Acme):
        @hookimpl
        def imgzoo_run_started(self, folder: Path) -> None:
            raise kind("broken")

        @hookimpl
        def imgzoo_run_logged(self, row: object) -> None:
            seen.append(row)
            raise kind("broken")

        @hookimpl
        def imgzoo_run_ended(self, summary: object) -> None:
            raise kind("broken")

    acme(Following())
    arguments = ["test_resnet", "--data", "digits:", "--epochs", "1", "--img-size", "32", "--device", "cpu"]
    done = CliRunner().invoke(command, [*arguments, "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert seen and (tmp_path / "run/best/model.safetensors").is_file()
    assert json.loads((tmp_path / "run/summary.json").read_text())["best"]
    assert "plugin acme failed at imgzoo_run_logged" in done.output
