"""Features in files, probes and search: exact order, the same bits after a cut, the answers of scikit-learn."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from train_commands import fails, invoke

import imgzoo
from imgzoo_train.cli import embed, probe, search
from imgzoo_train.features import embedding, store
from imgzoo_train.features.probing import Linear, accuracy, hold_back, linear_probe, nearest
from imgzoo_train.features.searching import nearest_rows
from imgzoo_train.features.store import read_features

SMALL = ["--img-size", "32", "--device", "cpu", "--batch-size", "50"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of seeded networks: what they answer means nothing, that two runs answer alike does."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("test_resnet", 0), ("test_vit", 0), ("other", 1)):
        torch.manual_seed(seed)
        model = imgzoo.create_model("test_resnet" if name == "other" else name, img_size=None)
        imgzoo.save_model(model, folder / name)
    return folder


@pytest.fixture(scope="module")
def files(models, tmp_path_factory):
    """The digits embedded in each format."""
    folder = tmp_path_factory.mktemp("features")
    for suffix in (".npy", ".parquet", ".safetensors"):
        invoke(embed, "digits:", "--model", models / "test_resnet", "--output", folder / f"digits{suffix}", *SMALL)
    invoke(
        embed,
        "digits:",
        "--model",
        models / "test_resnet",
        "--split",
        "train",
        "--output",
        folder / "train.npy",
        *SMALL,
    )
    return folder


@pytest.mark.parametrize("suffix", store.SUFFIXES)
def test_every_format_holds_the_vectors_before_the_classifier_in_the_order_of_the_source(models, files, suffix):
    from imgzoo_data import create_dataset, create_transform, resolve_data_config

    found, source = read_features(files / f"digits{suffix}"), create_dataset("digits:", "validation")
    assert found.keys == [source.key(index) for index in range(len(source))]
    assert found.targets.tolist() == source.targets().tolist()
    assert found.record["source"] == "digits:"
    model = imgzoo.create_model(f"local-dir:{models / 'test_resnet'}", pretrained=True).eval()
    transform = create_transform(resolve_data_config(model, img_size=32, use_test_size=False), training=False)
    places = [0, 7, 359]
    with torch.inference_mode():
        images = torch.stack([transform(source[place].data) for place in places])
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
    np.testing.assert_allclose(found.vectors()[places], expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("suffix", [".parquet", ".safetensors"])
def test_levels_are_arrays_of_their_own(models, tmp_path, suffix):
    path = tmp_path / f"levels{suffix}"
    invoke(embed, "digits:", "--model", models / "test_resnet", "--kind", "levels", "--output", path, *SMALL)
    found = read_features(path)
    model = imgzoo.create_model("test_resnet")
    shapes = [(360, channels) for channels in model.feature_info.channels()]
    assert [array.shape[:2] for array in found.arrays.values()] == shapes


def test_tokens_need_a_network_of_tokens(models, tmp_path):
    options = ["--kind", "tokens", "--device", "cpu", "--output", tmp_path / "tokens.npy"]
    assert "has no tokens" in fails(embed, "digits:", "--model", models / "test_resnet", *options)
    folder = tmp_path / "images"
    for index in range(3):
        (folder / "one").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (index * 40, 0, 0)).save(folder / "one" / f"{index}.png")
    invoke(embed, f"folder:{folder}", "--model", models / "test_vit", *options)
    assert read_features(tmp_path / "tokens.npy").arrays["features"].shape == (3, 101, 64)


@pytest.fixture
def cut(monkeypatch):
    """A run that dies in its fourth batch, every batch being a part."""
    monkeypatch.setattr(embedding, "PART_SECONDS", 0.0)
    count, call = iter(range(100)), embedding.Embedder.__call__

    def dying(self, images):
        if next(count) == 3:
            raise RuntimeError("cut")
        return call(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(embedding.Embedder, "__call__", dying)
        yield patch


@pytest.mark.parametrize("suffix", store.SUFFIXES)
def test_a_run_cut_short_goes_on_to_the_same_file(models, files, tmp_path, cut, suffix):
    path = tmp_path / f"again{suffix}"
    arguments = ["digits:", "--model", models / "test_resnet", "--output", path, *SMALL]
    with pytest.raises(RuntimeError, match="cut"):
        invoke(embed, *arguments)
    assert not path.exists()
    cut.undo()
    assert "add --resume" in fails(embed, *arguments)
    for change, word in (
        (["--model", models / "other"], "the weights of the model"),
        (["--batch-size", "60"], "batch_size (50, now 60)"),
        (["--split", "train"], "split (validation, now train)"),
    ):
        assert word in fails(embed, *arguments, *change, "--resume")
    assert "150 of them before" in invoke(embed, *arguments, "--resume").output
    whole, again = read_features(files / f"digits{suffix}"), read_features(path)
    assert np.array_equal(whole.vectors(), again.vectors())
    assert (whole.keys, whole.targets.tolist()) == (again.keys, again.targets.tolist())
    assert {entry.name for entry in tmp_path.iterdir()} <= {path.name, f"{path.name}.json"}


def test_mistakes_of_embed_are_one_sentence(models, files, tmp_path):
    model = ["--model", models / "test_resnet", *SMALL]
    assert ".npy, .parquet, .safetensors" in fails(embed, "digits:", *model, "--output", tmp_path / "a.h5")
    assert "--overwrite" in fails(embed, "digits:", *model, "--output", files / "digits.npy")
    one = ["--kind", "levels", "--output", tmp_path / "a.npy"]
    assert "use .safetensors or .parquet" in fails(embed, "digits:", *model, *one)
    both = ["--resume", "--overwrite", "--output", tmp_path / "a.npy"]
    assert "one of them" in fails(embed, "digits:", *model, *both)
    (tmp_path / "empty").mkdir()
    assert "no images" in fails(embed, f"folder:{tmp_path / 'empty'}", *model, "--output", tmp_path / "a.npy")
    assert "no split 'odd'" in fails(embed, "digits:", *model, "--split", "odd", "--output", tmp_path / "a.npy")
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.parametrize("suffix", store.SUFFIXES)
def test_a_file_that_is_no_features_is_refused(tmp_path, suffix):
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(imgzoo.errors.DataError, match="holds no features"):
        read_features(path)


def test_rows_that_lost_their_keys_are_refused(files, tmp_path):
    for name in ("digits.npy", "digits.npy.json"):
        (tmp_path / name).write_bytes((files / name).read_bytes())
    note = json.loads((tmp_path / "digits.npy.json").read_text())
    (tmp_path / "digits.npy.json").write_text(json.dumps({**note, "keys": note["keys"][1:]}))
    with pytest.raises(imgzoo.errors.DataError, match="differ in number"):
        read_features(tmp_path / "digits.npy")


def test_the_network_without_its_classifier_gives_the_vector_before_it():
    """Over one small network a family, where they are named so."""
    for name in ("test_resnet", "test_vit", "test_efficientnet", "test_convnext", "test_vit3", "test_byobnet"):
        torch.manual_seed(0)
        model = imgzoo.create_model(name).eval()
        bare = imgzoo.create_model(name, num_classes=0).eval()
        bare.load_state_dict({k: v for k, v in model.state_dict().items() if k in bare.state_dict()})
        images = torch.randn(1, *model.pretrained_cfg["input_size"])
        with torch.inference_mode():
            one, two = (m.forward_head(m.forward_features(images), pre_logits=True) for m in (model, bare))
        assert torch.equal(one, two), name


@pytest.fixture(scope="module")
def pair(files):
    """Training and validation vectors and labels."""
    found = [read_features(files / name) for name in ("train.npy", "digits.npy")]
    return [(torch.from_numpy(np.array(each.vectors())), torch.from_numpy(each.targets)) for each in found]


@pytest.mark.parametrize("k", [1, 5, 20, 200])
def test_neighbors_vote_as_scikit_learn_lets_them(pair, k):
    neighbors = pytest.importorskip("sklearn.neighbors")
    (bank, labels), (queries, wanted) = pair
    theirs = neighbors.KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp(-distance / 0.07)
    )
    theirs.fit(bank.double().numpy(), labels.numpy())
    expected = 100 * theirs.score(queries.double().numpy(), wanted.numpy())
    votes = nearest(bank, labels, queries, [k, 3], 10)[k]
    assert accuracy(votes, wanted)["top1"] == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("c", [0.001, 0.1, 10.0])
def test_the_linear_probe_is_scikit_learns_at_equal_c(pair, c):
    linear_model = pytest.importorskip("sklearn.linear_model")
    (bank, labels), (queries, wanted) = pair
    ours, chosen, _ = linear_probe(bank, labels, 10, [c])
    theirs = linear_model.LogisticRegression(C=c, max_iter=5000, tol=1e-6)
    theirs.fit(((bank - ours.mean) / ours.scale).double().numpy(), labels.numpy())
    expected = 100 * theirs.score(((queries - ours.mean) / ours.scale).double().numpy(), wanted.numpy())
    assert chosen == c
    assert accuracy(ours(queries), wanted)["top1"] == pytest.approx(expected, abs=1.0)
    np.testing.assert_allclose(ours.weight.numpy(), theirs.coef_, atol=0.02 * np.abs(theirs.coef_).max())


def test_the_regularization_is_the_best_of_those_tried_on_images_held_back(pair):
    (bank, labels), _ = pair
    held = hold_back(labels, 0.2)
    share = torch.bincount(labels[held]) / torch.bincount(labels)
    assert (share - 0.2).abs().max() < 0.01
    _, chosen, scores = linear_probe(bank, labels, 10, [10.0, 1e-6, 0.1])
    assert list(scores) == [1e-6, 0.1, 10.0]
    assert scores[chosen] == max(scores.values()) > scores[1e-6]
    alone = Linear(bank[~held], 10).fit(bank[~held], labels[~held], 1e-6)
    assert (alone(bank[held]).argmax(1) == labels[held]).float().mean() * 100 == pytest.approx(scores[1e-6], abs=0.5)


def test_a_probe_of_files_and_of_a_source_say_the_same(models, files):
    one = invoke(
        probe, "--features", files / "train.npy", files / "digits.npy", "--device", "cpu", "--json", "-k", "5,20"
    )
    two = invoke(probe, "digits:", "--model", models / "test_resnet", *SMALL, "--json", "-k", "5,20")
    rows = json.loads(one.stdout)
    assert rows == json.loads(two.stdout)
    assert [(row["probe"], row.get("k")) for row in rows] == [("k-nn", 5), ("k-nn", 20), ("linear", None)]
    assert rows[-1]["top1"] > 80
    assert len(rows[-1]["held_back"]) == 7


@pytest.mark.parametrize(("count", "said"), [(8, [8]), (16, [10]), (40, [10, 20])])
def test_a_small_source_is_probed_with_as_many_neighbors_as_it_has(models, tmp_path, count, said):
    rng = np.random.default_rng(0)
    for split, many in (("train", count), ("val", 4)):
        for index in range(many):
            place = tmp_path / split / "ab"[index % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(place / f"{index}.png")
    rows = json.loads(invoke(probe, f"folder:{tmp_path}", "--model", models / "test_resnet", *SMALL, "--json").stdout)
    assert [row["k"] for row in rows if row["probe"] == "k-nn"] == said


def test_mistakes_of_probe_are_one_sentence(models, files, tmp_path):
    both = ["--features", files / "train.npy", files / "digits.npy"]
    assert "-k 2000" in fails(probe, *both, "-k", "2000")
    assert "from 1 up" in fails(probe, *both, "-k", "0")
    assert "above 0" in fails(probe, *both, "-C", "0")
    assert "two files" in fails(probe, "digits:", *both, "--model", "x")
    assert "two files" in fails(probe, "digits:")
    assert "there is no file" in fails(probe, "--features", files / "train.npy", files / "none.npy")
    invoke(embed, "digits:", "--model", models / "other", "--output", tmp_path / "other.npy", *SMALL)
    assert "differ in their weights" in fails(probe, "--features", files / "train.npy", tmp_path / "other.npy")
    for index in range(2):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{index}.png")
    unlabeled = ["--train-split", "validation", "--model", models / "test_resnet", *SMALL]
    assert "one label an image" in fails(probe, f"folder:{tmp_path}", *unlabeled)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """The eighth digit as a file, and its key."""
    from imgzoo_data import create_dataset

    source, path = create_dataset("digits:", "validation"), tmp_path_factory.mktemp("query") / "query.png"
    Image.fromarray(source[7].data).save(path)
    return path, source.key(7)


@pytest.mark.parametrize("suffix", store.SUFFIXES)
def test_an_image_of_the_source_finds_itself_then_the_nearest(models, files, photo, tmp_path, suffix):
    path, key = photo
    options = ["--features", files / f"digits{suffix}", "--model", models / "test_resnet", "--device", "cpu", "-k", "8"]
    rows = json.loads(invoke(search, path, *options, "--json", "--sheet", tmp_path / "sheet.png").stdout)
    assert rows[0]["key"] == key
    assert rows[0]["cosine"] == pytest.approx(1, abs=1e-5)
    vectors = np.asarray(read_features(files / f"digits{suffix}").vectors(), np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = np.sort(vectors @ vectors[7])[::-1][:8]
    np.testing.assert_allclose([row["cosine"] for row in rows], expected, atol=1e-5)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 900  # six tiles side by side, three below
        assert sheet.height > 300
        tiles = [np.asarray(sheet.crop((left, 18, left + 160, 178)), float) for left in (4, 168, 332)]
    assert np.array_equal(tiles[0], tiles[1])  # the query and itself
    assert not np.array_equal(tiles[0], tiles[2])


def test_of_equal_images_the_first_is_found_first():
    vectors = np.array([[0, 1], [2, 0], [1, 0], [0, 0]], np.float32)
    cosines, places = nearest_rows(vectors, np.array([[5, 0]], np.float32), 4)
    assert places.tolist() == [[1, 2, 0, 3]]
    assert cosines.tolist() == [[1, 1, 0, 0]]


def test_mistakes_of_search_are_one_sentence(models, files, photo, tmp_path, monkeypatch):
    path, model = photo[0], ["--model", models / "test_resnet", "--device", "cpu"]
    features = ["--features", files / "digits.npy"]
    assert "the weights of" in fails(search, path, *features, "--model", models / "other", "--device", "cpu")
    assert "-k 361" in fails(search, path, *features, *model, "-k", "361")
    assert "there is no image" in fails(search, tmp_path / "none.png", *features, *model)
    assert "there is no file" in fails(search, path, "--features", tmp_path / "none.npy", *model)
    assert "not from '.txt'" in fails(search, path, "--features", tmp_path / "none.txt", *model)
    assert "--sheet takes" in fails(search, path, *features, *model, "--sheet", tmp_path / "sheet.gif")
    assert "is the image that is looked for" in fails(search, path, *features, *model, "--sheet", path)
    levels = tmp_path / "levels.safetensors"
    invoke(embed, "digits:", *model, "--kind", "levels", "--img-size", "32", "--output", levels)
    assert "--kind pooled" in fails(search, path, "--features", levels, *model)
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert "pip install faiss-cpu" in fails(search, path, *features, *model, "--engine", "faiss")


def test_a_sheet_of_a_source_that_changed_is_refused(models, photo, tmp_path):
    folder, model = tmp_path / "images", ["--model", models / "test_resnet", "--device", "cpu"]
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (20, 20), (index * 40, 0, 0)).save(folder / f"{index}.png")
    invoke(embed, f"folder:{folder}", *model, "--output", tmp_path / "images.npy")
    options = ["--features", tmp_path / "images.npy", *model, "-k", "3", "--sheet", tmp_path / "sheet.png"]
    assert "class" not in invoke(search, photo[0], *options).output
    (folder / "0.png").unlink()
    assert "is not what was embedded" in fails(search, photo[0], *options)
