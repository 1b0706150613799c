"""What a message advises is there, on that very command, and helps."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from train_commands import check_advice, fails, flags_of, invoke

import imgzoo
from imgzoo_data.cli import data as data_commands
from imgzoo_train.cli import embed, explain, export, predict, probe, search, train, validate
from imgzoo_train.models.opening import open_model
from imgzoo_train.models.quantizing import Calibration, pictures_of

SMALL = ["--img-size", "16", "--device", "cpu"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    made = imgzoo.create_model("test_resnet", num_classes=2)
    made.class_names = ["ant", "bee"]
    return imgzoo.save_model(made, tmp_path_factory.mktemp("models") / "two", class_names=["ant", "bee"])


def folder(root, change):
    """Eight images a class and split of which `change` spoils one in each split."""
    for split, count in (("train", 8), ("validation", 4)):
        for number, name in enumerate(("ant", "bee")):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng([number, index, count])
                path = root / split / name / f"{index}.png"
                Image.fromarray(rng.integers(0, 256, (20, 20, 3)).astype(np.uint8)).save(path)
        change(root / split / "bee" / "1.png")
    return root


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def deepen(path):
    array = np.random.default_rng("train" in path.parts).integers(0, 4096, (20, 20))
    Image.fromarray(array.astype(np.uint16)).save(path)


def widen(path):
    Image.new("RGB", (120, 120), (9 * ("train" in path.parts), 0, 0)).save(path)


class Module:
    def __init__(self, command):
        self.command = command


SHOW, CHECK = (Module(data_commands.command.commands[name]) for name in ("show", "check"))
COMMANDS = {
    "train": (train, ["test_resnet", "--data", "SOURCE", "--input-size", "16", "--epochs", "1", "--batch-size", "4",
                      "--device", "cpu", "--threads", "1", "--output", "OUT/run"]),
    "validate": (validate, ["MODEL", "--data", "SOURCE", *SMALL]),
    "embed": (embed, ["SOURCE", "--model", "MODEL", "--output", "OUT/f.npy", *SMALL]),
    "probe": (probe, ["SOURCE", "--model", "MODEL", *SMALL]),
    "export": (export, ["MODEL", "--engine", "onnxruntime", "--precision", "int8", "--calibrate", "SOURCE",
                        "--max-loss", "1", "--img-size", "16", "--output", "OUT/m.imgzoo"]),
    "explain": (explain, ["IMAGE", "--model", "MODEL", "--method", "gradcam", "--output", "OUT", *SMALL]),
    "search": (search, ["IMAGE", "--features", "FEATURES", "--model", "MODEL", "-k", "1", "--device", "cpu"]),
    "show": (SHOW, ["SOURCE", "--size", "16", "--count", "16", "--out", "OUT/sheet.png"]),
}  # fmt: skip
MODES = ["--find-lr", "--find-batch", "--profile"]


def told(arguments, root, model, out, features=""):
    words = {"SOURCE": f"folder:{root}", "MODEL": str(model), "IMAGE": str(root / "train" / "bee" / "1.png"),
             "FEATURES": str(features)}  # fmt: skip
    return [words.get(each, each.replace("OUT", str(out))) for each in arguments]


@pytest.fixture(scope="module")
def features(model, tmp_path_factory):
    root = folder(tmp_path_factory.mktemp("fine") / "d", lambda path: None)
    invoke(embed, f"folder:{root}", "--model", model, "--output", root / "f.npy", *SMALL)
    return root / "f.npy"


@pytest.mark.parametrize("name", COMMANDS)
def test_an_image_cut_short_is_a_sentence_whose_advice_is_there(tmp_path, model, features, name):
    module, arguments = COMMANDS[name]
    if name == "export":
        pytest.importorskip("onnxruntime")
    text = fails(module, *told(arguments, folder(tmp_path / "d", cut), model, tmp_path, features))
    assert "bee/1.png" in text or name in ("explain", "search", "show")


@pytest.mark.parametrize("mode", MODES)
def test_what_tries_things_out_says_what_a_run_says(tmp_path, model, mode):
    module, arguments = COMMANDS["train"]
    root = folder(tmp_path / "d", lambda path: None)
    for path in sorted(root.glob("train/*/*.png")):
        cut(path)
    given = told(arguments, root, model, tmp_path)
    if mode == "--find-batch":
        invoke(module, *given, mode)  # it draws its images
    else:
        assert "--max-bad replaces such samples by others" in fails(module, *given, mode)


@pytest.mark.parametrize(("spoil", "words", "remedy"), [
    (deepen, "pass range=4095 (--range 4095)", ["--range", "4095"]),
    (widen, "raise max_pixels (--max-pixels)", ["--max-pixels", "20000"]),
])  # fmt: skip
@pytest.mark.parametrize("name", COMMANDS)
def test_the_range_and_the_limit_of_pixels_are_options_wherever_images_are_read(
    tmp_path, model, features, name, spoil, words, remedy
):
    module, arguments = COMMANDS[name]
    if name == "export":
        pytest.importorskip("onnxruntime")
    root = folder(tmp_path / "d", spoil)
    given = told(arguments, root, model, tmp_path, features)
    tight = ["--max-pixels", "10000"] if spoil is widen else []
    assert words in fails(module, *given, *tight)
    assert remedy[0] in flags_of(module.command)
    for path in (tmp_path / "m.imgzoo", tmp_path / "f.npy"):
        assert not path.exists()
    if name == "export":  # what follows takes long, and reads no more
        asked = {remedy[0].strip("-").replace("-", "_"): remedy[1] if spoil is deepen else int(remedy[1])}
        found = pictures_of(open_model(str(model)), (3, 16, 16), Calibration(f"folder:{root}", **asked))
        assert sum(map(len, found.batches)) == 8
    else:
        invoke(module, *given, *remedy, *(["--resume"] if (tmp_path / "run").exists() else []))


def test_predict_and_check_have_them_too(tmp_path, model):
    root = folder(tmp_path / "d", deepen)
    image = root / "train" / "bee" / "1.png"
    for module, arguments in ((predict, [image, "--model", model, *SMALL]), (CHECK, [f"folder:{root}"])):
        shown = invoke(module, *arguments, code=1)
        assert "--range 4095" in shown.output
        assert "--range 4095" not in invoke(module, *arguments, "--range", "4095").output


def test_the_check_of_advice_finds_what_is_not_there():
    for text in ("see bad='skip'", "use --nothing", "add dynamic_img_pad=True", "`imgzoo data check folder:a --wrong`",
                 "give pretrained= a file"):  # fmt: skip
        with pytest.raises(AssertionError):
            check_advice(text, embed.command)
    check_advice("`imgzoo data check folder:a --split validation` lists them; --resume, pass root= for", embed.command)


@pytest.mark.parametrize("size", [33, 47])
def test_a_size_that_patches_do_not_divide_names_sizes_that_work(tmp_path, size):
    root = folder(tmp_path / "d", lambda path: None)
    arguments = ["test_vit", "--data", f"folder:{root}", "--epochs", "1", "--batch-size", "4", "--device", "cpu",
                 "--threads", "1", "--set", "model.options.dynamic_img_size=true", "--dry-run"]  # fmt: skip
    text = fails(train, *arguments, "--img-size", size)
    sizes = [int(number) for number in re.findall(r"\((\d+), \1\)", text.partition(";")[2])]
    assert len(sizes) == 2
    for each in sizes:
        invoke(train, *arguments, "--img-size", each)
