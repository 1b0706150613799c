"""Several labels an image, from every kind of table: vectors, fields of 0 and 1, names, paths into JSON."""

import json

import numpy as np
import pytest
from data_helpers import noise, tar_bytes

from imgzoo.errors import DataError, UsageError
from imgzoo_data import create_dataset, create_loader, create_transform

ROWS = [
    {"attrs": {"red": 1, "round": 0}, "hot": [1, 0], "names": ["red"], "objects": [{"label": "red"}]},
    {"attrs": {"red": 1, "round": 1}, "hot": [1, 1], "names": ["red", "round"],
     "objects": [{"label": "red"}, {"label": "round"}]},
    {"attrs": {"red": 0, "round": 0}, "hot": [0, 0], "names": [], "objects": []},
]  # fmt: skip
WANTED = [[1, 0], [1, 1], [0, 0]]
WAYS = {
    "fields": "attrs/red,attrs/round&target_format=multihot",
    "vector": "hot&target_format=multihot",
    "names": "names&target_format=labels",
    "objects": "objects/label&target_format=labels",
}


def parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    writer = pytest.importorskip("pyarrow.parquet")
    rows = [{"image": noise(i), **row} for i, row in enumerate(ROWS)]
    writer.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    return f"parquet:{tmp_path / 'd.parquet'}?target_key="


def save_hugging_face(folder, rows, features):
    """A saved data set; its fingerprint is given, since hashing a table in memory depends on other libraries."""
    datasets, pyarrow = pytest.importorskip("datasets"), pytest.importorskip("pyarrow")
    features = datasets.Features({"image": datasets.Image(), **features})
    rows = [{"image": {"bytes": noise(number), "path": None}, **row} for number, row in enumerate(rows)]
    table = datasets.table.InMemoryTable(pyarrow.Table.from_pylist(rows, schema=features.arrow_schema))
    found = datasets.Dataset(table, info=datasets.DatasetInfo(features=features), fingerprint="test")
    found.save_to_disk(str(folder))


def hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    number, text = datasets.Value("int64"), datasets.Value("string")
    features = {"attrs": {"red": number, "round": number}, "hot": datasets.List(number), "names": datasets.List(text)}
    save_hugging_face(tmp_path / "d", ROWS, {**features, "objects": datasets.List({"label": text})})
    return f"hf:{tmp_path / 'd'}?target_key="


def webdataset(tmp_path):
    files = {}
    for number, row in enumerate(ROWS):
        files |= {f"{number}.jpg": noise(number), f"{number}.json": json.dumps(row).encode()}
    (tmp_path / "d.tar").write_bytes(tar_bytes(files))
    return f"wds:{tmp_path / 'd.tar'}?target_key=json/"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [parquet, hugging_face, webdataset])
def test_several_labels_from_every_table(tmp_path, make, way):
    key = WAYS[way].replace(",", ",json/") if make is webdataset else WAYS[way]
    source = create_dataset(make(tmp_path) + key)
    assert source.multi_label and source.num_classes == 2
    assert list(source.class_names) == (["0", "1"] if way == "vector" else ["red", "round"])
    assert source.targets().tolist() == WANTED == [source[i].target.tolist() for i in range(3)]
    batch = next(iter(create_loader(source, create_transform(input_size=(3, 8, 8)), 3)))
    assert batch.targets.tolist() == WANTED


@pytest.mark.parametrize("make", [parquet, hugging_face, webdataset])
def test_a_field_that_is_not_there_is_named(tmp_path, make):
    name = make(tmp_path)
    with pytest.raises((DataError, UsageError), match=r"attrs/blue'; there are red, round"):
        create_dataset(f"{name}attrs/blue&target_format=value")
    with pytest.raises((DataError, UsageError), match="nothing"):
        create_dataset(f"{name}nothing")


@pytest.mark.parametrize("make", [parquet, hugging_face, webdataset])
def test_a_vector_of_something_else_names_row_and_field(tmp_path, make):
    with pytest.raises(DataError, match=r"(:0|row 0|'0').*(names|0 and 1)"):
        create_dataset(make(tmp_path) + "names&target_format=multihot")


def test_several_fields_want_a_form(tmp_path):
    (tmp_path / "d.csv").write_text("image,x,y\n0.jpg,1,0\n")
    with pytest.raises(UsageError, match="target_format=multihot"):
        create_dataset(f"csv:{tmp_path / 'd.csv'}?target_key=x,y")


def test_declared_class_names_are_found_however_deep(tmp_path):
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["cat", "dog", "emu"])
    rows = [{"meta": {"kind": number}, "objects": [{"label": 2 - number}]} for number in (0, 2)]
    save_hugging_face(tmp_path / "d", rows, {"meta": {"kind": label}, "objects": datasets.List({"label": label})})
    source = create_dataset(f"hf:{tmp_path / 'd'}?target_key=meta/kind")
    assert list(source.class_names) == ["cat", "dog", "emu"] and source.targets().tolist() == [0, 2]
    source = create_dataset(f"hf:{tmp_path / 'd'}?target_key=objects/label&target_format=labels")
    assert list(source.class_names) == ["cat", "dog", "emu"] and source.targets().tolist() == [[0, 0, 1], [1, 0, 0]]
    (tmp_path / "m.json").write_text('{"emu": 0, "cat": 1}')
    source = create_dataset(f"hf:{tmp_path / 'd'}?target_key=meta/kind&class_map={tmp_path / 'm.json'}")
    assert source.targets().tolist() == [1, 0]


def shard(tmp_path, **targets: bytes):
    files = {}
    for number in range(2):
        files[f"{number}.jpg"] = noise(number)
        files |= {f"{number}.{name}": content for name, content in targets.items()}
    (tmp_path / "d.tar").write_bytes(tar_bytes(files))
    return f"wds:{tmp_path / 'd.tar'}"


def test_webdataset_labels_have_alternatives(tmp_path):
    name = shard(tmp_path, json=b'{"label": 3}')
    assert create_dataset(f"{name}?target_key=cls;json/label").targets().tolist() == [3, 3]
    with pytest.raises(DataError, match=r"sample '0' has no target 'cls'"):
        create_dataset(name)
    assert create_dataset(shard(tmp_path, txt=b"dog") + "?target_key=txt&target_format=class").class_names == ["dog"]


def test_a_class_map_over_the_numbers_of_shards(tmp_path):
    (tmp_path / "m.json").write_text('{"7": 1, "9": 0}')
    assert create_dataset(shard(tmp_path, cls=b"7") + f"?class_map={tmp_path / 'm.json'}").targets().tolist() == [1, 1]
    (tmp_path / "m.json").write_text('{"cat": 0, "dog": 1}')
    assert create_dataset(shard(tmp_path, cls=b"1") + f"?class_map={tmp_path / 'm.json'}").targets().tolist() == [1, 1]


def test_numbers_to_predict_from_shards(tmp_path):
    source = create_dataset(shard(tmp_path, json=b'{"age": 1.5}') + "?target_key=json/age", task="regression")
    assert source.targets().tolist() == [1.5, 1.5] and source.class_names == [] and not source.multi_label
    assert source.targets().dtype == np.float32


@pytest.mark.parametrize("options", ["", "&num_classes=4"])
def test_streams_of_shards_know_their_classes_or_say_so(tmp_path, options):
    name = shard(tmp_path, txt=b"dog") + "?target_key=txt&target_format=class&streaming"
    with pytest.raises(UsageError, match="class_map"):
        create_dataset(name)
    stream = create_dataset(shard(tmp_path, cls=b"3") + f"?streaming{options}")
    assert [sample.target for sample in stream.stream(0, 0, 0, 1, False)] == [3, 3]
