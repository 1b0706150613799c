"""Sources that other libraries read: Parquet, Hugging Face, TensorFlow datasets, torchvision; each an extra."""

import io
import sys

import numpy as np
import pytest
from data_helpers import noise, write_folder

from imgzoo.errors import DataError, MissingDependencyError, UsageError
from imgzoo_data import create_dataset, create_loader, create_transform, open_splits
from imgzoo_data.sources.layout import SplitError
from imgzoo_data.sources.listing import ELSEWHERE, NO_BYTES, byte_counts, image_bytes


@pytest.mark.parametrize(("scheme", "extra"), [("parquet", "parquet"), ("hf", "hf"), ("tfds", "tfds")])
def test_a_missing_library_names_its_extra(tmp_path, scheme, extra, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet", "datasets", "tensorflow_datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'imgzoo-data\[{extra}\]'"):
        create_dataset(f"{scheme}:{tmp_path}")


def parquet_file(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)


@pytest.mark.parametrize("kind", ["parquet", "hf", "files", "imagefolder"])
def test_copies_in_tables_are_found(tmp_path, kind):
    """Two rows of validation are also in training, and one image of training has two labels."""
    images = [noise(number) for number in range(9)]
    halves = {"train": [*range(6), 0], "validation": [4, 5, 6, 7, 8]}
    labels = {"train": [*"aabbab", "b"], "validation": [*"abbab"]}
    if kind == "parquet":
        for split, rows in halves.items():
            parquet_file(tmp_path / f"{split}.parquet", [{"image": images[row], "label": label}
                                                         for row, label in zip(rows, labels[split])])  # fmt: skip
    elif kind == "imagefolder":
        for split, rows in halves.items():
            for place, (row, label) in enumerate(zip(rows, labels[split])):
                (tmp_path / split / label).mkdir(parents=True, exist_ok=True)
                (tmp_path / split / label / f"{place}.jpg").write_bytes(images[row])
    else:
        datasets = pytest.importorskip("datasets")
        for row, data in enumerate(images):
            (tmp_path / f"{row}.jpg").write_bytes(data)
        features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
        found = {}
        for split, rows in halves.items():
            cells = [{"bytes": None, "path": str(tmp_path / f"{row}.jpg")} if kind == "files" else
                     {"bytes": images[row], "path": None} for row in rows]  # fmt: skip
            found[split] = datasets.Dataset.from_dict({"image": cells, "label": labels[split]}, features=features)
        datasets.DatasetDict(found).save_to_disk(str(tmp_path / "saved"))
    name = f"parquet:{tmp_path}" if kind == "parquet" else f"hf:{tmp_path / 'saved'}?anywhere=true"
    name = f"hf:{tmp_path}" if kind == "imagefolder" else name
    with pytest.raises(UsageError, match="2 of 5 validation images are also training images"):
        open_splits(name)
    splits = open_splits(name, allow_shared=True)
    assert splits.shared == "2 of 5 validation images are also in training, compared by content"
    assert any("1 image under two labels" in note for note in splits.description[0].notes)


def test_sizes_are_known_without_reading_rows():
    pyarrow = pytest.importorskip("pyarrow")
    cells = [b"abc", None, b""]
    for column, wanted in (
        (pyarrow.array(cells), [3, NO_BYTES, 0]),
        (pyarrow.array([{"bytes": cell, "path": "x"} for cell in cells]), [3, ELSEWHERE, 0]),
        (pyarrow.array(["a.jpg", "b.jpg"]), [ELSEWHERE] * 2),
        (pyarrow.array([[[1, 2]], [[3, 4]]]), [NO_BYTES] * 2),
    ):
        assert byte_counts(column).tolist() == wanted
        assert byte_counts(pyarrow.chunked_array([column, column])).tolist() == wanted * 2


def test_parquet_rows_of_bytes(tmp_path):
    rows = [{"image": {"bytes": noise(i), "path": None}, "meta": {"label": "ab"[i % 2]}} for i in range(5)]
    parquet_file(tmp_path / "d.parquet", rows)
    source = create_dataset(f"parquet:{tmp_path / 'd.parquet'}?target_key=meta/label")
    assert [source[i].data for i in (4, 0, 3)] == [noise(4), noise(0), noise(3)]
    assert source.targets().tolist() == [0, 1, 0, 1, 0] and list(source.class_names) == ["a", "b"]


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_sets(tmp_path, streaming):
    pytest.importorskip("datasets")
    write_folder(tmp_path / "data" / "train", {"cat": 3, "dog": 2})
    write_folder(tmp_path / "data" / "validation", {"cat": 1, "dog": 1})
    source = create_dataset(f"hf:{tmp_path / 'data'}", "val" if not streaming else "train", streaming=streaming)
    assert list(source.class_names) == ["cat", "dog"]
    loader = create_loader(source, create_transform(input_size=(3, 8, 8)), 4)
    targets = [t for batch in loader for t in batch.targets.tolist()]
    assert sorted(targets) == ([0, 0, 0, 1, 1] if streaming else [0, 1])


def test_a_saved_set_is_a_stream_of_its_length(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": noise(i), "path": None} for i in range(6)], "label": [0, 1] * 3}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "d")
    source = create_dataset(f"hf:{tmp_path / 'd'}", streaming=True)
    assert len(source) == 6
    for training in (False, True):
        assert sorted(sample.target for sample in source.stream(0, 0, 0, 1, training)) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("split", [None, "train"])
def test_a_saved_set_has_the_splits_it_was_saved_with(tmp_path, split):
    """`Dataset.from_dict` names no split: what counts is whether a dictionary of splits was saved, or one table."""
    datasets = pytest.importorskip("datasets")

    def table(first, count):
        cells = {"image": [{"bytes": noise(first + i), "path": None} for i in range(count)], "label": list("ab") * 4}
        cells["label"] = cells["label"][:count]
        return datasets.Dataset.from_dict(cells, split=split and datasets.NamedSplit(split))

    datasets.DatasetDict(train=table(0, 6), validation=table(10, 4)).save_to_disk(str(tmp_path / "both"))
    datasets.DatasetDict(Training=table(0, 6), VAL=table(10, 4)).save_to_disk(str(tmp_path / "cased"))
    datasets.DatasetDict(train=table(0, 6), test=table(10, 4), meta=table(20, 1)).save_to_disk(str(tmp_path / "more"))
    table(0, 6).save_to_disk(str(tmp_path / "one"))
    for name in ("both", "cased"):
        found = open_splits(f"hf:{tmp_path / name}")
        assert (len(found.train), len(found.validation)) == (6, 4)
    with pytest.raises(SplitError, match=r"or choose one with --val-split test$"):
        open_splits(f"hf:{tmp_path / 'more'}")
    with pytest.raises(SplitError, match="it is all one: hold back training images with --val-share"):
        open_splits(f"hf:{tmp_path / 'one'}")
    assert len(open_splits(f"hf:{tmp_path / 'one'}", val_share=0.34).validation) == 2


@pytest.mark.parametrize("names", [["cat", "cat "], ["\u00e9", "e\u0301"]])
def test_declared_classes_are_told_apart_as_folders_are(tmp_path, names):
    datasets = pytest.importorskip("datasets")

    def saved(folder, names):
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        cells = {"image": [{"bytes": noise(i), "path": None} for i in range(4)], "label": [0, 1, 0, 1]}
        datasets.Dataset.from_dict(cells, features=features).save_to_disk(str(folder))
        return f"hf:{folder}"

    with pytest.raises(DataError, match=r"declares the classes .* differ by spaces or by how letters are composed"):
        create_dataset(saved(tmp_path / "twins", names))
    found = create_dataset(saved(tmp_path / "twins", names), class_map={name: 0 for name in names})
    assert found.num_classes == 1
    found = create_dataset(saved(tmp_path / "odd", ["a\x1b[31m", " b"]))
    assert list(found.class_names) == ["a\\x1b[31m", "b"] and found.targets().tolist() == [0, 1, 0, 1]
    assert any("by case" in note for note in create_dataset(saved(tmp_path / "case", ["Cat", "cat"])).notes)


@pytest.mark.parametrize("content", [b"", b"x" * 2000, b"PAR1" + b"x" * 90 + b"PAR1"])
def test_a_damaged_parquet_file_is_one_sentence(tmp_path, content):
    pytest.importorskip("pyarrow")
    (tmp_path / "d.parquet").write_bytes(content)
    with pytest.raises(DataError, match=r"d.parquet' is damaged, or not what its name says") as error:
        create_dataset(f"parquet:{tmp_path / 'd.parquet'}")
    assert "\n" not in str(error.value)
    parquet_file(tmp_path / "e.parquet", [{"image": noise(i), "label": "ab"[i % 2]} for i in range(6)])
    source = create_dataset(f"parquet:{tmp_path / 'e.parquet'}")
    whole = (tmp_path / "e.parquet").read_bytes()
    (tmp_path / "e.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        source[4]


def test_a_damaged_saved_set_is_one_sentence(tmp_path):
    datasets = pytest.importorskip("datasets")
    cells = {"image": [{"bytes": noise(i), "path": None} for i in range(4)], "label": list("abab")}
    datasets.Dataset.from_dict(cells).save_to_disk(str(tmp_path / "d"))
    for path in (tmp_path / "d").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="is damaged, or not what its name says") as error:
        create_dataset(f"hf:{tmp_path / 'd'}")
    assert "\n" not in str(error.value)


def test_a_cell_opens_no_file_elsewhere_unless_asked(tmp_path):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "secret.jpg").write_bytes(noise(0))
    cells = [{"bytes": None, "path": str(tmp_path / "secret.jpg")}, str(tmp_path / "d" / ".." / "secret.jpg")]
    for number, cell in enumerate(cells):
        folder = tmp_path / "d" / str(number)
        datasets.Dataset.from_dict({"image": [cell], "label": ["a"]}).save_to_disk(str(folder))
        reach = [folder.resolve()]
        with pytest.raises(DataError, match="add anywhere=true"):
            create_dataset(f"hf:{folder}")[0]
        assert create_dataset(f"hf:{folder}?anywhere=true")[0].data == noise(0)
        assert image_bytes(str(folder / "dataset_info.json"), None, reach)
    with pytest.raises(DataError, match="add anywhere=true"):
        image_bytes(str(tmp_path / "secret.jpg"), None, [tmp_path / "d"])


@pytest.mark.filterwarnings("ignore")
def test_tensorflow_datasets_without_tensorflow(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        "age": np.float32,
    }

    class Toy(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"image": io.BytesIO(noise(i)), "label": i % 2, "age": i / 2}

    Toy(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    where = f"tfds:toy?data_dir={tmp_path}"
    source = create_dataset(where)
    assert list(source.class_names) == ["cat", "dog"] and len(create_dataset(where, "train[:50%]")) == 3
    samples = [source[i] for i in range(6)]
    assert sorted(s.data for s in samples) == sorted(noise(i) for i in range(6))
    assert all(s.target == [noise(i) for i in range(6)].index(s.data) % 2 for s in samples)
    ages = create_dataset(f"{where}&target_key=age", task="regression")
    assert sorted(ages[i].target for i in range(6)) == [0, 0.5, 1, 1.5, 2, 2.5]
    for wrong, message in ((f"{where}&image_key=photo", "has no photo"), ("tfds:absent", "no data set")):
        with pytest.raises(UsageError, match=message):
            create_dataset(wrong)
    with pytest.raises(UsageError, match="train, test"):
        create_dataset(where, "validation")


def test_torchvision_folder_and_mnist(tmp_path):
    write_folder(tmp_path / "train", {"a": 2, "b": 1})
    source = create_dataset(f"torchvision:folder?root={tmp_path}")
    assert source[0].data == noise(0) and source.targets().tolist() == [0, 0, 1]
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 6), ("t10k", 3)):
        images = np.arange(count * 784, dtype=np.uint8).tobytes()
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(range(count))
        )
    source = create_dataset("torch/mnist", "validation", root=str(tmp_path))
    assert len(source) == 3 and source.num_classes == 10
    batch = next(
        iter(create_loader(source, create_transform(input_size=(1, 28, 28), crop_pct=1.0), 3, normalize=False))
    )
    assert (batch.images[0, 0].numpy() == np.arange(784, dtype=np.uint8).reshape(28, 28)).all()
    with pytest.raises(DataError, match="download"):
        create_dataset("torch/cifar10", root=str(tmp_path / "none"))
