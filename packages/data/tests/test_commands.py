"""`imgzoo data check|index|show`, and what the plugin costs before it is used."""

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from data_helpers import encode, noise, photo, tar_bytes, write_folder
from PIL import Image

from imgzoo.errors import UsageError
from imgzoo_data.cli.data import command
from imgzoo_data.examine import near_pairs


def run(*args, code=0):
    result = CliRunner().invoke(command, [str(a) for a in args], standalone_mode=False)
    raised = result.exception if not isinstance(result.exception, SystemExit) else None
    assert raised is None, raised
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture
def sick(tmp_path):
    """A folder with one of everything that is wrong; two good classes beside."""
    root = tmp_path / "data"
    write_folder(root / "train", {"a": 4, "b": 4})
    write_folder(root / "val", {"a": 1})
    put = {
        "a/empty.jpg": b"",
        "a/text.jpg": b"this is no image",
        "a/cut.jpg": encode(photo(0, (300, 200)))[:6000],
        "a/really.png": noise(50),
        "a/print.jpg": encode(photo(1, (90, 60)).convert("CMYK")),
        "a/again.jpg": noise(0),
        "b/other.jpg": noise(1),
        "b/photo.jpg": encode(photo(2, (400, 300))),
        "b/smaller.jpg": encode(photo(2, (200, 150))),
        "b/wide.png": encode(Image.new("1", (6000, 5000)), "PNG"),
        "b/<img onerror=x>.jpg": noise(60),
    }
    for name, content in put.items():
        (root / "train" / name).write_bytes(content)
    (root / "val" / "a" / "leak.jpg").write_bytes(noise(60))
    return root


EXPECTED = {
    "empty": {"a/empty.jpg"},
    "corrupt": {"a/text.jpg"},
    "truncated": {"a/cut.jpg"},
    "wrong extension": {"a/really.png"},
    "CMYK": {"a/print.jpg"},
    "duplicate": {"a/again.jpg"},
    "conflict": {"b/other.jpg"},
    "near duplicate": {"b/smaller.jpg"},
    "huge": {"b/wide.png"},
}


def test_check_finds_one_of_everything(sick, tmp_path):
    out = run("check", f"folder:{sick}", "--against", "val", "--json", "--report", tmp_path / "r.html", code=1)
    report = json.loads(out)
    found: dict[str, set] = {}
    for row in report["findings"]:
        found.setdefault(row["kind"], set()).add(row["key"])
    for kind, keys in EXPECTED.items():
        assert found[kind] == keys, kind
    assert "b/<img onerror=x>.jpg" in found["leak"]
    assert report["classes"] == {"a": 10, "b": 9}
    assert report["errors"] == sum(report["counts"][k] for k in ("empty", "corrupt", "truncated", "conflict", "leak"))


def test_the_report_shows_thumbnails_and_runs_nothing(sick, tmp_path):
    run("check", f"folder:{sick}", "--report", tmp_path / "r.html", code=1)
    page = (tmp_path / "r.html").read_text()
    assert "data:image/webp;base64," in page and "default-src 'none'" in page
    assert "<img onerror" not in page
    for outside in ("http:", "https:", "<script", "src='/"):
        assert outside not in page


def test_check_of_a_healthy_source():
    out = run("check", "digits:", "--against", "validation")
    assert "1,437 samples, 10 classes" in out and "nothing to report" in out


def test_near_pairs_finds_all_pairs_within_three_bits():
    rng = np.random.default_rng(0)
    hashes = [int(h) for h in rng.integers(0, 1 << 62, 60)]
    hashes += [
        h ^ sum(1 << int(b) for b in rng.choice(62, k, replace=False)) for h, k in zip(hashes, [0, 1, 2, 3, 4] * 12)
    ]
    found = {(a, b) for a, b, _ in near_pairs(hashes, hashes, 3) if a < b}
    brute = {(a, b) for a in range(120) for b in range(a + 1, 120) if (hashes[a] ^ hashes[b]).bit_count() <= 3}
    assert found == brute and len(brute) >= 48


def test_index_is_written_and_used(tmp_path):
    (tmp_path / "d.tar").write_bytes(tar_bytes({f"a/{i}.jpg": noise(i) for i in range(3)}))
    row = json.loads(run("index", f"tar:{tmp_path / 'd.tar'}", "--json"))
    assert row["images"] == 3 and row["tars"] == 1
    from imgzoo_data import create_dataset

    out = tmp_path / "own.npz"
    assert "3 images" in run("index", f"tar:{tmp_path / 'd.tar'}", "--out", out)
    before = out.stat().st_mtime_ns
    assert len(create_dataset(f"tar:{tmp_path / 'd.tar'}", index=str(out))) == 3
    assert out.stat().st_mtime_ns == before


def test_show_draws_what_the_network_will_see(tmp_path):
    options = ["--size", "32", "--channels", "1", "--views", "3", "--count", "4"]
    out = run("show", "digits:", *options, "--transform", "rrc | hflip", "--out", tmp_path / "s.png")
    assert out.splitlines()[0] == "rrc | hflip"
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width >= 3 * 64 and sheet.height >= 4 * 64


def test_show_of_patch_sequences_and_of_evaluation(tmp_path):
    run("show", "digits:", "--transform", "seq(patch=8, length=30, random=True)", "--out", tmp_path / "a.png")
    run("show", "digits:", "--eval", "--size", 64, "--out", tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size > 1000 and (tmp_path / "b.png").stat().st_size > 1000


@pytest.mark.parametrize("module", ["imgzoo_data", "imgzoo_data._plugin"])
def test_discovery_imports_nothing_heavy(module):
    heavy = ["torch", "numpy", "PIL", "torchvision", "simplejpeg"]
    code = f"import sys, {module}; sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_declared_component_can_be_loaded():
    from imgzoo_data import _plugin

    for spec in (*_plugin.imgzoo_datasets(), *_plugin.imgzoo_transforms(), *_plugin.imgzoo_commands()):
        assert callable(spec.load()) and spec.help


def test_public_names_exist_and_are_documented():
    import imgzoo_data

    for name in imgzoo_data.__all__:
        assert getattr(imgzoo_data, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = imgzoo_data.nothing


def test_check_says_what_the_source_is_and_shows_names_escaped(tmp_path):
    write_folder(tmp_path / "train", {"a": 2, "\x1b]0;evil\x07": 2})
    (tmp_path / "train" / "a" / "\x1b[2J.jpg").write_bytes(b"<html>")
    (tmp_path / "train" / "a" / "list.txt").write_text("")
    with open(bytes(tmp_path / "train" / "a") + b"/\xe9.jpg", "wb") as file:
        file.write(noise(70))
    out = run("check", f"folder:{tmp_path}", "--report", tmp_path / "r.html", code=1)
    assert "\x1b" not in out and "\\x1b[2J.jpg: the file is HTML" in out
    assert "train: 6 images of 2 classes" in out and "1 files .txt" in out and "folder 'train'" in out
    assert "\x1b" not in (tmp_path / "r.html").read_text()
    report = json.loads(run("check", f"folder:{tmp_path}", "--json", code=1))
    assert report["description"]["left_out"] == {"files .txt": 1}


def test_check_tells_values_outside_their_range(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", np.full((40, 40), 3000 + ord(name), np.uint16))
    assert "range=4095" in run("check", f"folder:{tmp_path}", code=1)
    assert "nothing to report" in run("check", f"folder:{tmp_path}?range=4095")


def test_check_has_a_pixel_limit(tmp_path):
    write_folder(tmp_path, {"a": 1, "b": 1})
    assert "too large" in run("check", f"folder:{tmp_path}", "--max-pixels", 100, code=1)


def test_a_page_is_written_over_no_other_file(sick):
    photo = sick / "val" / "a" / "leak.jpg"
    arguments = ["check", f"folder:{sick}", "--report", str(photo)]
    error = CliRunner().invoke(command, arguments, standalone_mode=False).exception
    assert isinstance(error, UsageError) and "a .html file, not" in str(error)
    assert photo.read_bytes() == noise(60)
