"""Every scheme gives the same samples the same way; hostile archives, listings and names do no harm."""

import io
import json
import os
import tarfile

import numpy as np
import pytest
from data_helpers import noise, tar_bytes, write_folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imgzoo.errors import DataError, OptionError, UnknownNameError, UsageError
from imgzoo_data import create_dataset, create_loader, create_transform
from imgzoo_data.sources.base import parse_source
from imgzoo_data.sources.index import IndexBuilder
from imgzoo_data.sources.tarindex import read_members
from imgzoo_data.sources.wds import expand


def test_digits_split_is_fixed_and_complete():
    train, held = create_dataset("digits:"), create_dataset("digits:", "val")
    assert (len(train), len(held), train.num_classes) == (1437, 360, 10)
    keys = {train.key(i) for i in range(len(train))} | {held.key(i) for i in range(len(held))}
    assert len(keys) == 1797
    assert np.bincount(held.targets()).min() >= 20  # every digit is there
    assert train[0].data.shape == (8, 8) and max(train[i].data.max() for i in range(9)) == 255
    assert train[0].target == train.targets()[0]


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), create_dataset("digits:all")
    assert (ours.targets() == theirs.target).all()
    assert (np.stack([ours[i].data for i in range(1797)]).astype(int) == (theirs.images * 255 + 8) // 16).all()


def test_folder_classes_are_in_natural_order(tmp_path):
    write_folder(tmp_path / "train", {"n10": 1, "n2": 2, "N1": 1})
    (tmp_path / "train" / "n2" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "n2" / ".hidden.jpg").write_bytes(b"")
    source = create_dataset(f"folder:{tmp_path}")
    assert list(source.class_names) == ["N1", "n2", "n10"]
    assert source.targets().tolist() == [0, 1, 1, 2]
    assert [source.key(i) for i in range(4)] == ["N1/0.jpg", "n2/0.jpg", "n2/1.jpg", "n10/0.jpg"]


@pytest.mark.parametrize("folder", ["val", "valid", "validation", "eval", "evaluation"])
def test_split_synonyms(tmp_path, folder):
    write_folder(tmp_path / folder, {"a": 1})
    write_folder(tmp_path / "training", {"a": 2})
    assert len(create_dataset(str(tmp_path), "validation")) == 1
    assert len(create_dataset(str(tmp_path), "train")) == 2


def test_a_missing_split_is_not_replaced_by_everything(tmp_path):
    write_folder(tmp_path / "train", {"a": 1})
    write_folder(tmp_path / "val", {"a": 1})
    with pytest.raises(UsageError, match="no split 'test'"):
        create_dataset(str(tmp_path), "test")


@pytest.mark.parametrize("kind", ["dict", "list", "txt", "json", "json list"])
def test_class_maps(tmp_path, kind):
    write_folder(tmp_path / "data", {"cat": 1, "dog": 1, "emu": 1})
    maps = {"dict": {"dog": 0, "cat": 1}, "list": ["dog", "cat"]}
    (tmp_path / "m.txt").write_text("dog\ncat\n")
    (tmp_path / "m.json").write_text(json.dumps(maps["list" if kind == "json list" else "dict"]))
    given = maps.get(kind) or str(tmp_path / ("m.txt" if kind == "txt" else "m.json"))
    source = create_dataset(f"folder:{tmp_path / 'data'}", class_map=given)
    assert list(source.class_names) == ["dog", "cat"]
    assert sorted(source.targets().tolist()) == [0, 1]


@pytest.mark.parametrize("given", [{10: 0, 9: 1}, {np.int64(10): np.int64(0), 9: 1}, [10, 9], np.array([10, 9])])
def test_a_class_map_takes_numbers_as_labels(tmp_path, given):
    write_folder(tmp_path / "data", {"9": 1, "10": 1})
    source = create_dataset(f"folder:{tmp_path / 'data'}", class_map=given)
    assert source.class_names == ["10", "9"] and source.num_classes == 2
    with pytest.raises(UsageError, match="twice"):
        create_dataset(f"folder:{tmp_path / 'data'}", class_map={10: 0, "10": 1})


def test_a_pickled_class_map_is_refused(tmp_path):
    write_folder(tmp_path / "data", {"cat": 1})
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04.")
    with pytest.raises(UsageError, match=r"only \.txt"):
        create_dataset(f"folder:{tmp_path / 'data'}?class_map={tmp_path / 'm.pkl'}")


def test_errors_of_create_dataset(tmp_path):
    write_folder(tmp_path / "data", {"cat": 1})
    with pytest.raises(UnknownNameError):
        create_dataset("folderr:x")
    with pytest.raises(OptionError, match="class_map"):
        create_dataset(f"folder:{tmp_path / 'data'}?classmap=x")
    with pytest.raises(UsageError, match="does not exist"):
        create_dataset("folder:/nowhere")
    with pytest.raises(DataError, match="no images"):
        create_dataset(f"folder:{tmp_path / 'data'}?extensions=.gif")


def test_the_name_of_a_source_says_its_scheme(tmp_path):
    assert parse_source("tar:/a/b.tar?class_map=c.txt&index=false") == (
        "tar",
        "/a/b.tar",
        {"class_map": "c.txt", "index": False},
    )
    assert parse_source("hfids/org/name?shuffle=16")[0::2] == ("hf", {"streaming": True, "shuffle": 16})
    assert parse_source("torch/cifar10")[:2] == ("torchvision", "cifar10")
    assert [parse_source(p)[0] for p in ("a.csv", "b.tsv", "c.parquet", "d.tar", str(tmp_path))] == [
        "csv", "csv", "parquet", "tar", "folder",
    ]  # fmt: skip


TREE = {f"train/{c}/{i}.jpg": noise(10 * k + i) for k, c in enumerate(("bee", "ant")) for i in range(3)}


def same_samples(source, wanted: dict[str, bytes], classes: list[str]):
    assert list(source.class_names) == classes
    found = sorted((source[i].data, classes[source[i].target]) for i in range(len(source)))
    assert found == sorted((data, name.split("/")[-2]) for name, data in wanted.items())


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_one_tar(tmp_path, kind):
    files = {**TREE, "readme.txt": b"x", "train/ant/" + "l" * 80 + "/ant/x.jpg": noise(99)}
    (tmp_path / "data.tar").write_bytes(tar_bytes(files, kind))
    files.pop("readme.txt")
    same_samples(create_dataset(f"tar:{tmp_path / 'data.tar'}"), files, ["ant", "bee"])


def test_a_very_long_name(tmp_path):
    files = {"ant/" + "x" * 300 + ".jpg": noise(0)}
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        (tmp_path / "data.tar").write_bytes(tar_bytes(files, kind))
        source = create_dataset(f"tar:{tmp_path / 'data.tar'}")
        assert source.key(0).endswith("x" * 300 + ".jpg")


def test_a_folder_of_tars_and_tars_in_a_tar(tmp_path):
    (tmp_path / "many").mkdir()
    inner = {name: tar_bytes({f"{i}.jpg": noise(i) for i in range(2)}) for name in ("bee", "ant")}
    for name, content in inner.items():
        (tmp_path / "many" / f"{name}.tar").write_bytes(content)
    (tmp_path / "outer.tar").write_bytes(tar_bytes({f"all/{name}.tar": content for name, content in inner.items()}))
    for location in (tmp_path / "many", tmp_path / "outer.tar"):
        source = create_dataset(str(location))
        assert list(source.class_names) == ["ant", "bee"]
        assert [source[i].data for i in range(4)] == [noise(0), noise(1)] * 2
        assert sorted(source.targets().tolist()) == [0, 0, 1, 1]


def test_links_and_devices_are_refused_and_nothing_is_extracted(tmp_path, caplog):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind in (("a/s.jpg", tarfile.SYMTYPE), ("a/h.jpg", tarfile.LNKTYPE), ("a/d.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("../../a/up.jpg")
        info.size = len(noise(0))
        tar.addfile(info, io.BytesIO(noise(0)))
    (tmp_path / "bad.tar").write_bytes(out.getvalue())
    source = create_dataset(f"tar:{tmp_path / 'bad.tar'}?index=false")
    assert len(source) == 1 and source[0].data == noise(0)
    assert "3 members" in caplog.text
    assert os.listdir(tmp_path) == ["bad.tar"]


def test_damaged_tars_are_errors(tmp_path):
    whole = tar_bytes(TREE)
    (tmp_path / "cut.tar").write_bytes(whole[:900])
    (tmp_path / "zip.tar").write_bytes(b"\x1f\x8b" + os.urandom(2000))
    huge = bytearray(whole)
    huge[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
    huge[148:156] = b"%06o\0 " % (sum(huge[:148]) + 256 + sum(huge[156:512]))
    (tmp_path / "huge.tar").write_bytes(huge)
    negative = bytearray(whole)
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b"%06o\0 " % (sum(negative[:148]) + 256 + sum(negative[156:512]))
    (tmp_path / "negative.tar").write_bytes(negative)
    for name in ("cut", "zip", "huge", "negative"):
        with pytest.raises(DataError, match=name):
            create_dataset(f"tar:{tmp_path / name}.tar")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8), st.integers(0, 10_000))
def test_no_tar_makes_the_reader_leave_its_bounds(tmp_path, changes, end):
    content = bytearray(tar_bytes(dict(list(TREE.items())[:2]))[:end])
    for place, value in changes:
        if place < len(content):
            content[place] = value
    path = tmp_path / "fuzz.tar"
    path.write_bytes(content)
    fd = os.open(path, os.O_RDONLY)
    try:
        for member in read_members(fd, 0, len(content), []):
            assert 0 <= member.offset <= member.offset + member.size <= len(content)
    except DataError:
        pass
    finally:
        os.close(fd)


def test_the_index_is_cached_and_forgotten_when_the_tar_changes(tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(tar_bytes(TREE))
    create_dataset(f"tar:{path}")
    (cached,) = (tmp_path / "cache" / "index").iterdir()
    before = cached.stat().st_mtime_ns
    create_dataset(f"tar:{path}")
    assert cached.stat().st_mtime_ns == before
    replaced = {name.replace("bee", "cow"): noise(7) for name in TREE}
    path.write_bytes(tar_bytes(replaced))
    same_samples(create_dataset(f"tar:{path}"), replaced, ["ant", "cow"])
    cached.write_bytes(b"not an index")
    same_samples(create_dataset(f"tar:{path}"), replaced, ["ant", "cow"])


def test_an_index_that_points_outside_the_tar_is_not_believed(tmp_path):
    path = tmp_path / "data.tar"
    path.write_bytes(tar_bytes(TREE))
    create_dataset(f"tar:{path}")
    (cached,) = (tmp_path / "cache" / "index").iterdir()
    with np.load(cached) as found:
        arrays = dict(found)
    arrays["offsets"] = arrays["offsets"] + (1 << 40)
    np.savez(cached, **arrays)
    same_samples(create_dataset(f"tar:{path}"), TREE, ["ant", "bee"])


def csv_file(tmp_path, text):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(noise(ord(name[0])))
    (tmp_path / "list.csv").write_text(text)
    return f"csv:{tmp_path / 'list.csv'}"


def test_csv_with_one_label(tmp_path):
    source = create_dataset(csv_file(tmp_path, "path,label,split\na.jpg,dog,train\nb.jpg,cat,train\na.jpg,cat,val\n"))
    assert list(source.class_names) == ["cat", "dog"]
    assert source.targets().tolist() == [1, 0]
    assert source[0].data == noise(ord("a"))
    assert len(create_dataset(f"csv:{tmp_path / 'list.csv'}", "validation")) == 1


def test_csv_with_lists_and_with_multi_hot_columns(tmp_path):
    name = csv_file(tmp_path, 'path,labels\na.jpg,"dog;cat"\nb.jpg,emu\n')
    lists = create_dataset(name, target_format="labels", target_key="labels")
    assert lists.multi_label and list(lists.class_names) == ["cat", "dog", "emu"]
    assert lists[0].target.tolist() == [1, 1, 0]
    name = csv_file(tmp_path, "path,x,y\na.jpg,1,0\nb.jpg,1,1\n")
    hot = create_dataset(name, target_format="multihot", target_key="x,y")
    assert list(hot.class_names) == ["x", "y"] and hot.targets().tolist() == [[1, 0], [1, 1]]
    batch = next(iter(create_loader(hot, create_transform(input_size=(3, 16, 16)), 2)))
    assert batch.targets.tolist() == [[1, 0], [1, 1]]


def test_csv_with_numbers_to_predict(tmp_path):
    name = csv_file(tmp_path, "path,target,x,y\na.jpg,0.25,1,-2\nb.jpg,-7,3e2,4.5\n")
    one = create_dataset(name, task="regression")
    assert list(one.class_names) == [] and one.num_classes == 1 and not one.multi_label and one.numeric
    batch = next(iter(create_loader(one, create_transform(input_size=(3, 16, 16)), 2)))
    assert batch.targets.tolist() == [0.25, -7.0]
    two = create_dataset(name, task="regression", target_key="x,y")
    batch = next(iter(create_loader(two, create_transform(input_size=(3, 16, 16)), 2)))
    assert two.num_classes == 2 and batch.targets.tolist() == [[1.0, -2.0], [300.0, 4.5]]
    assert create_dataset(name, task="regression", target_format="class").num_classes == 2


@pytest.mark.parametrize("cell", ["dog", "", "nan", "inf"])
def test_a_target_that_is_no_number_is_named(tmp_path, cell):
    with pytest.raises(DataError, match="number"):
        create_dataset(csv_file(tmp_path, f"path,target\na.jpg,1.5\nb.jpg,{cell}\n"), task="regression")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n../x.jpg,a\n", "leaves the folder"),
        ("path,label\n/etc/passwd,a\n", "leaves the folder"),
        ("path,label\na.jpg\n", "number of cells"),
        ("path,label\n", "no rows"),
        ("", "list.csv is empty: its first line names the columns"),
        ("x,y\n1,2\n", "image_key"),
        ("path,label,label\na.jpg,cat,dog\n", "several columns are called 'label'"),
        ("path;label\na.jpg;cat\n", "single column 'path;label'; pass delimiter=;"),
        ("path\tlabel\na.jpg\tcat\n", "pass delimiter=tab"),
        ("path,z\na.jpg,2\n", "target_key"),
        ("x,y\n1,2\n", "where line 1 is a row, all of them with columns="),
        ("cat,a.jpg\ndog,b.jpg\n", r"line 1 is a row, 'a\.jpg' names an image .* columns=label,image$"),
        ("a.jpg,cat,3\n", r"columns=image,label,column3$"),
        ("list.csv,cat\n", r"line 1 is a row, 'list\.csv'"),  # a file that is there, whatever its ending
    ],
)
def test_hostile_and_wrong_csvs(tmp_path, text, message):
    with pytest.raises((DataError, UsageError), match=message):
        create_dataset(csv_file(tmp_path, text))


def test_what_is_no_csv_is_called_what_it_is(tmp_path):
    with pytest.raises(UsageError, match="is a folder; csv: reads one file of rows, folder: images in folders"):
        create_dataset(f"csv:{tmp_path}")
    (tmp_path / "list.xlsx").write_bytes(b"PK\x03\x04\x14\x00\x06\x00\xff\xfe")
    with pytest.raises(UsageError, match=r"list\.xlsx is a zip archive; csv: reads text"):
        create_dataset(f"csv:{tmp_path / 'list.xlsx'}")
    (tmp_path / "list.csv").write_bytes("path,label\na.jpg,Käfer\n".encode("latin-1"))
    with pytest.raises(DataError, match="line 2 is not utf-8: pass encoding=latin-1"):
        create_dataset(f"csv:{tmp_path / 'list.csv'}")


def test_a_csv_whose_columns_are_named_beside_it(tmp_path):
    name = csv_file(tmp_path, "a.jpg,dog,train\nb.jpg,cat,train\na.jpg,cat,val\n")
    source = create_dataset(f"{name}?columns=image, label,split")
    assert (len(source), source.class_names, source.key(0)) == (2, ["cat", "dog"], "a.jpg")
    other = create_dataset(f"{name}?columns=file,breed,part&target_key=breed&split_key=part", "validation")
    assert other.targets().tolist() == [0]
    with pytest.raises(DataError, match="line 1 has another number of cells than columns=image,label"):
        create_dataset(f"{name}?columns=image,label")
    with pytest.raises(UsageError, match=r"no column of images among x, y, z; name it with image_key$"):
        create_dataset(f"{name}?columns=x,y,z")
    for header in ("path,label,split", "image,breed,split", "Image,Label,Split"):
        csv_file(tmp_path, f"{header}\na.jpg,dog,train\n")
        with pytest.raises(UsageError, match="line 1 names the columns already; leave columns= out"):
            create_dataset(f"{name}?columns={'image,breed,split' if 'breed' in header else 'image,label,split'}")


def test_labels_of_shards_without_an_image_are_counted(tmp_path):
    files = {
        "0.jpg": noise(0),
        "0.cls": b"0",
        "1.jxl": b"x",
        "1.cls": b"1",
        "2.cls": b"1",
        "3.jpg": noise(1),
        "3.cls": b"1",
    }
    (tmp_path / "d.tar").write_bytes(tar_bytes({**files, "3.cls": b"1", "4.cls": b"0"}))
    source = create_dataset(f"wds:{tmp_path / 'd.tar'}")
    assert len(source) == 2 and source.left_out == {"labels without an image": 3}
    assert "left out: 3 labels without an image" in str(source.describe())


def test_the_delimiter_of_a_csv(tmp_path):
    name = csv_file(tmp_path, "path\tlabel\na.jpg\tcat\nb.jpg\tdog\n")
    assert create_dataset(f"{name}?delimiter=tab").class_names == ["cat", "dog"]
    for wrong in ("xy", '"'):
        with pytest.raises(UsageError, match="one character"):
            create_dataset(name, delimiter=wrong)


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_any_text_as_csv_gives_a_typed_error_or_a_source(tmp_path, text):
    path = tmp_path / "fuzz.csv"
    path.write_text("path,label\n" + text, encoding="utf-8", errors="surrogateescape")
    try:
        source = create_dataset(f"csv:{path}")
    except (DataError, UsageError):
        return
    assert len(source) >= 1


def shards(tmp_path, count=3, each=4):
    for shard in range(count):
        files = {}
        for i in range(each):
            number = shard * each + i
            files[f"{number:05}.jpg"] = noise(number)
            files[f"{number:05}.cls"] = str(number % 5).encode()
        (tmp_path / f"train-{shard:03}.tar").write_bytes(tar_bytes(files))
    return str(tmp_path / f"train-{{000..00{count - 1}}}.tar")


def test_webdataset_shards_have_random_access(tmp_path):
    source = create_dataset("wds:" + shards(tmp_path))
    assert len(source) == 12 and source.num_classes == 5
    assert [source[i].target for i in (0, 7, 11)] == [0, 2, 1]
    assert source[7].data == noise(7)
    assert len(create_dataset(f"wds:{tmp_path}")) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_webdataset_streams_see_every_sample_once_in_evaluation(tmp_path, workers):
    source = create_dataset("wds:" + shards(tmp_path), streaming=True)
    seen = []
    for rank in range(2):
        loader = create_loader(
            source, create_transform(input_size=(3, 8, 8)), 3, workers=workers, rank=rank, world=2, normalize=False
        )
        seen += [image.numpy().tobytes() for batch in loader for image in batch.images]
        loader.close()
    whole = create_loader(
        create_dataset("wds:" + shards(tmp_path)), create_transform(input_size=(3, 8, 8)), 12, normalize=False
    )
    assert sorted(seen) == sorted(image.numpy().tobytes() for image in next(iter(whole)).images)


def test_streams_train_for_whole_steps_shuffle_by_epoch_and_seek(tmp_path):
    source = create_dataset("wds:" + shards(tmp_path), streaming=True, shuffle=4)
    transform = create_transform(training=True, input_size=(3, 8, 8))
    loader = create_loader(source, transform, 4, num_samples=12, workers=1)
    first = [batch.images for batch in loader]
    second = [batch.images for batch in loader]
    assert len(first) == len(second) == len(loader) == 3
    assert not all((a == b).all() for a, b in zip(first, second))
    loader.seek(0, 1)
    again = [batch.images for batch in loader]
    assert len(again) == 2 and all((a == b).all() for a, b in zip(first[1:], again))
    loader.close()
    with pytest.raises(UsageError, match="num_samples"):
        create_loader(source, transform, 4)


def test_shard_ranges():
    assert expand("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expand("{0..1}{0..1}::x") == ["00", "01", "10", "11", "x"]
    with pytest.raises(UsageError, match="range"):
        expand("{0..999999999}")


def test_webdataset_targets_are_read_not_run(tmp_path):
    (tmp_path / "x.tar").write_bytes(tar_bytes({"a.jpg": noise(0), "a.cls": b"__import__('os')"}))
    with pytest.raises(DataError, match="class_map"):
        create_dataset(f"wds:{tmp_path / 'x.tar'}")


def test_a_million_files_cost_less_than_a_hundred_bytes_each_beside_their_names():
    builder = IndexBuilder()
    for i in range(20_000):
        builder.add(f"n{i % 1000:08}/image_{i:08}.jpg", i % 1000, i * 1000, 900)
    index = builder.build()
    names = sum(len(name) for name in index.names())
    assert (index.nbytes - names) / len(index) < 40
    assert index.name(12_345) == "n00000345/image_00012345.jpg"
