"""Classes neither vanish nor are invented: names, levels of folders, labels of listings, options as text."""

import io
import os
import tarfile
import time
import zipfile
from typing import Any

import numpy as np
import pytest
from data_helpers import noise, tar_bytes, write_folder
from PIL import Image

from imgzoo.errors import DataError, ImgzooError, OptionError, UsageError
from imgzoo_data import create_dataset
from imgzoo_data.sources.base import parse_source


def classes(source) -> list[str]:
    return list(create_dataset(str(source)).class_names)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_levels_that_contradict_each_other_are_refused(tmp_path, kind):
    names = [f"{pet}/{where}/{i}.jpg" for pet in ("cat", "dog") for where in ("indoor", "outdoor") for i in range(2)]
    name = pack(tmp_path, kind, names)
    with pytest.raises(UsageError, match=r"class_from=first for cat, dog, or class_from=last for indoor, outdoor"):
        create_dataset(name)
    assert classes(f"{name}?class_from=first") == ["cat", "dog"]
    assert classes(f"{name}?class_from=last") == ["indoor", "outdoor"]
    with pytest.raises(UsageError, match="auto, first, last"):
        create_dataset(f"{name}?class_from=middle")


def pack(tmp_path, kind: str, names: list[str], folders: list[str] | tuple = ()) -> str:
    """The named images, and empty folders, in a folder, a tar or a zip."""
    files = {name: noise(number) for number, name in enumerate(names)}
    if kind == "tar":
        (tmp_path / "d.tar").write_bytes(tar_bytes({**files, **{f"{name}/": b"" for name in folders}}))
    elif kind == "zip":
        with zipfile.ZipFile(tmp_path / "d.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in {**files, **{f"{name}/": b"" for name in folders}}.items():
                archive.writestr(name, data)
    else:
        for name, data in files.items():
            (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "d" / name).write_bytes(data)
        for name in folders:
            (tmp_path / "d" / name).mkdir(parents=True)
    return f"{kind}:{tmp_path / 'd'}" + ("" if kind == "folder" else f".{kind}")


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["animals/cat/0.jpg", "animals/dog/0.jpg", "things/cup/0.jpg"], ["cat", "cup", "dog"]),
        (["images/cat/0.jpg", "images/dog/0.jpg"], ["cat", "dog"]),
        (["cat/0.jpg", "cat/more/cat/0.jpg", "dog/0.jpg"], ["cat", "dog"]),
    ],
)
def test_levels_that_agree_are_taken(tmp_path, kind, names, wanted):
    assert classes(pack(tmp_path, kind, names)) == wanted


def test_a_zip_whose_names_are_parted_by_backslashes(tmp_path):
    pets = [rf"{pet}\{number}.jpg" for pet in ("cat", "dog") for number in range(2)]
    name = pack(tmp_path, "zip", [rf"{split}\{pet}" for split in ("train", "val") for pet in pets])
    source = create_dataset(name, "validation")
    assert list(source.class_names) == ["cat", "dog"] and len(source) == 4


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_images_beside_folders_of_images_are_refused(tmp_path, kind):
    with pytest.raises(UsageError, match="class_from"):
        create_dataset(pack(tmp_path, kind, ["cat/0.jpg", "cat/extra/0.jpg", "dog/0.jpg"]))


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize("ending", [".jxl", ".dng", ".svg", ""])
def test_a_class_of_unread_files_does_not_vanish(tmp_path, kind, ending):
    name = pack(tmp_path, kind, ["cat/0.jpg", "dog/0.jpg", f"emu/a{ending}", f"emu/b{ending}"])
    with pytest.raises(DataError, match=rf"'emu' would disappear: its 2 files {ending or 'without ending'}"):
        create_dataset(name)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_notes_beside_images_are_left_out_and_counted(tmp_path, kind):
    name = pack(
        tmp_path, kind, ["cat/0.jpg", "cat/x.txt", "dog/0.jpg", "meta/list.json", "dog/._0.jpg", "__MACOSX/cat/._1.jpg"]
    )
    source = create_dataset(name)
    assert list(source.class_names) == ["cat", "dog"] and len(source) == 2
    assert source.left_out["files .txt"] == 1 and source.left_out["files .json"] == 1
    assert source.left_out["hidden files"] >= 1


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize(
    ("images", "empty", "option", "said"),
    [
        (["cat/0.jpg", "dog/0.jpg"], ["bee"], "", ["bee"]),
        (["train/cat/0.jpg", "train/dog/0.jpg"], ["train/bee", "train/.git", "val/emu"], "", ["bee"]),
        (["cat/0.jpg", "dog/0.jpg", "bee/about.txt"], ["ant/old", "dog/old"], "?class_from=first", ["ant", "bee"]),
        (["set/cat/a/0.jpg", "set/dog/b/0.jpg"], ["set/cat/c"], "?class_from=last", ["c"]),
        (["cat/0.jpg", "dog/0.jpg"], [f"c{number}" for number in range(7)], "", ["c0", "c1", "c2", "c3", "c4"]),
    ],
)
def test_a_class_without_any_image_is_said(tmp_path, kind, images, empty, option, said):
    name = pack(tmp_path, kind, images, empty)
    source = create_dataset(name + option)
    more = " and 2 others" if len(empty) == 7 else ""
    shown = f"no images in the folder{'s' * (len(said) > 1)} {', '.join(map(repr, said))}{more}: no class"
    assert [note for note in source.notes if note.startswith("no images")] == [shown]
    assert f"note: {shown}" in str(source.describe())
    if kind == "tar":  # once more, from the index that was kept
        assert list(create_dataset(name + option).notes) == list(source.notes)


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_a_class_of_the_map_without_any_image_is_said_once(tmp_path, kind):
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    name = pack(tmp_path, kind, ["cat/0.jpg", "ant/0.jpg"], ["bee", "dog"])
    notes = create_dataset(f"{name}?class_map={tmp_path / 'names.txt'}").describe().notes
    assert [note for note in notes if "no images" in note] == ["no images in the folder 'dog': no class",
                                                               "no images of 'bee'"]  # fmt: skip


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_a_map_that_names_no_folder_is_said(tmp_path, kind):
    (tmp_path / "names.txt").write_text("Ant\nBee\n")
    name = pack(tmp_path, kind, ["ant/0.jpg", "bee/0.jpg"])
    with pytest.raises(DataError, match=r"no class of the map .*: the map has Ant, Bee, the folders are ant, bee$"):
        create_dataset(f"{name}?class_map={tmp_path / 'names.txt'}")


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("names.txt", "ant\nbee\nant\n", "'ant' stands there twice"),
        ("names.json", '{"ant": 0, "bee": 1, "ant": 2}', "'ant' stands there twice"),
        ("names.json", '["ant", "ant"]', "'ant' stands there twice"),
        ("names.txt", "\n", "the class map names no class"),
        ("names.json", "{}", "the class map names no class"),
    ],
)
def test_a_map_without_one_meaning_is_refused(tmp_path, file, text, said):
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=said):
        create_dataset(f"{pack(tmp_path, 'folder', ['ant/0.jpg', 'bee/0.jpg'])}?class_map={tmp_path / file}")


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_without_images_among_those_that_are_classes_is_said(tmp_path, kind):
    for name in ("cat", "dog", "bee"):
        pack(tmp_path, kind, [f"{number}.jpg" for number in range(2 * (name != "bee"))])
        (tmp_path / f"d.{kind}").rename(tmp_path / f"{name}.{kind}")
    source = create_dataset(f"{kind}:{tmp_path}")
    assert list(source.class_names) == ["cat", "dog"] and source.notes == ["no images in the folder 'bee': no class"]


def test_names_that_differ_by_spaces_or_composition_are_refused(tmp_path):
    write_folder(tmp_path / "a", {"cat": 1, "cat ": 1})
    with pytest.raises(DataError, match=r"the class folders .* differ by spaces"):
        create_dataset(f"folder:{tmp_path / 'a'}")
    write_folder(tmp_path / "b", {"caf\u00e9": 1, "cafe\u0301": 1})
    with pytest.raises(DataError, match="composed"):
        create_dataset(f"folder:{tmp_path / 'b'}")
    write_folder(tmp_path / "c", {"Cat": 1, "cat": 1})
    assert "differ by case" in str(create_dataset(f"folder:{tmp_path / 'c'}").describe())


def test_names_that_differ_by_case_alone_are_said_wherever_they_come_from(tmp_path):
    write_folder(tmp_path / "pets", {"Cat": 1, "cat": 1, "dog": 1})
    rows = ["image,label", "Cat/0.jpg,Cat", "cat/0.jpg,cat", "dog/0.jpg,dog"]
    (tmp_path / "pets" / "list.csv").write_text("\n".join(rows))
    listing = f"csv:{tmp_path / 'pets' / 'list.csv'}"
    for name in (f"folder:{tmp_path / 'pets'}", listing, f"{listing}?target_format=labels"):
        source = create_dataset(name)
        assert source.num_classes == 3
        assert "classes that differ by case alone: Cat and cat" in source.notes


def test_names_that_are_not_utf_8_or_hold_escapes_can_be_printed(tmp_path):
    for name in (b"caf\xe9", b"\x1b[31mred", b"dog"):
        folder = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(folder)
        with open(os.path.join(folder, b"0.jpg"), "wb") as file:
            file.write(noise(len(name)))
    source = create_dataset(f"folder:{tmp_path}")
    assert set(source.class_names) == {"caf\\xe9", "\\x1b[31mred", "dog"}
    assert str(source.describe()).encode() and all("\x1b" not in name for name in source.class_names)
    assert len([source[i].data for i in range(3)]) == 3


def test_errors_show_names_escaped(tmp_path):
    with pytest.raises(UsageError) as found:
        create_dataset(f"folder:{tmp_path}/\x1b[2Jx\udce9")
    assert "\\x1b[2Jx\\xe9" in str(found.value) and str(found.value).encode()


def test_link_loops_end_and_linked_classes_are_read(tmp_path):
    write_folder(tmp_path / "elsewhere", {"dog": 2})
    write_folder(tmp_path / "d", {"cat": 1})
    os.symlink(tmp_path / "elsewhere" / "dog", tmp_path / "d" / "dog")
    os.symlink(tmp_path / "d", tmp_path / "d" / "cat" / "loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "d" / "cat" / "gone.jpg")
    source = create_dataset(f"folder:{tmp_path / 'd'}")
    assert list(source.class_names) == ["cat", "dog"] and len(source) == 3
    assert source.left_out == {"links to a folder above": 1, "broken links": 1}


def test_links_inside_a_tar_are_the_files_they_lead_to(tmp_path):
    out = io.BytesIO(tar_bytes({"cat/0.jpg": noise(0), "dog/0.jpg": noise(1)}))
    with tarfile.open(fileobj=out, mode="a") as tar:
        for name, kind, target in (
            ("dog/hard.jpg", tarfile.LNKTYPE, "cat/0.jpg"), ("dog/soft.jpg", tarfile.SYMTYPE, "../cat/0.jpg"),
            ("dog/twice.jpg", tarfile.SYMTYPE, "soft.jpg"), ("dog/out.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    (tmp_path / "d.tar").write_bytes(out.getvalue())
    source = create_dataset(f"tar:{tmp_path / 'd.tar'}")
    found = {source.key(i).rpartition(":")[2]: source[i].data for i in range(len(source))}
    assert {name for name, data in found.items() if data == noise(0)} == {
        "cat/0.jpg", "dog/hard.jpg", "dog/soft.jpg", "dog/twice.jpg",
    }  # fmt: skip
    assert source.left_out == {"members that are no plain files": 1}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zips_have_random_access_and_find_their_splits(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "d.zip", "w", method) as archive:
        for number, (split, name) in enumerate((s, c) for s in ("train", "val") for c in ("ant", "caf\u00e9")):
            archive.writestr(f"set/{split}/{name}/0.jpg", noise(number))
    source = create_dataset(str(tmp_path / "d.zip"), "validation")
    assert list(source.class_names) == ["ant", "caf\u00e9"]
    assert [source[i].data for i in (1, 0)] == [noise(3), noise(2)] and source.targets().tolist() == [0, 1]


def test_damaged_and_locked_zips_are_refused(tmp_path):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/0.jpg", noise(0))
        archive.writestr("b/0.jpg", noise(1))
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(DataError, match="damaged here"):
        create_dataset(f"zip:{path}")[0]
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match="cannot be read as a zip"):
        create_dataset(f"zip:{path}")
    locked = bytearray(whole)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[whole.index(mark) + place] |= 1
    path.write_bytes(locked)
    with pytest.raises(DataError, match="encrypted"):
        create_dataset(f"zip:{path}")


def listing(tmp_path, labels, header="path,label", **options):
    lines = [header]
    for number, label in enumerate(labels):
        (tmp_path / f"{number}.jpg").write_bytes(noise(number))
        lines.append(f"{number}.jpg,{label}")
    (tmp_path / "d.csv").write_text("\n".join(lines) + "\n", **options)
    return f"csv:{tmp_path / 'd.csv'}"


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["1200", "1207", "1214", "1200"], ["1200", "1207", "1214"]),
        (["01", "02", "03"], ["01", "02", "03"]),
        (["cat", "cat ", " dog"], ["cat", "dog"]),
        (["20000001", "20000000"], ["20000000", "20000001"]),
        (["10", "9", "0"], ["0", "9", "10"]),
    ],
)
def test_labels_of_a_listing_are_names(tmp_path, labels, wanted):
    start = time.process_time()
    source = create_dataset(listing(tmp_path, labels))
    assert list(source.class_names) == wanted and source.num_classes == len(wanted)
    assert [wanted[t] for t in source.targets()] == [label.strip() for label in labels]
    assert time.process_time() - start < 5


def test_numbers_are_numbers_where_they_are_kinds_of(tmp_path):
    source = create_dataset(listing(tmp_path, ["3", "0"]) + "?target_format=number")
    assert source.num_classes == 4 and source.targets().tolist() == [3, 0]
    with pytest.raises(DataError, match="only 2 occur"):
        create_dataset(listing(tmp_path, ["20000000", "1"]) + "?target_format=number")
    with pytest.raises(DataError, match="'x' is no class number"):
        create_dataset(listing(tmp_path, ["x", "1"]) + "?target_format=number")


def test_a_class_map_may_be_over_numbers(tmp_path):
    (tmp_path / "m.json").write_text('{"1200": 1, "1207": 0}')
    source = create_dataset(listing(tmp_path, ["1200", "1207"]) + f"?class_map={tmp_path / 'm.json'}")
    assert source.targets().tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n0.jpg,x\n1.jpg,\n", r"d\.csv, line 3, column 'label': the label is empty"),
        ("path,label\n0.jpg,x\n,y\n", r"d\.csv, line 3, column 'path': the path of the image is empty"),
        ("path,label\n0.jpg,x\n../1.jpg,y\n", r"d\.csv, line 3, column 'path': .*leaves the folder"),
        ("path,label\n0.jpg,x\n1.jpg\n", r"d\.csv, line 3 has another number of cells"),
    ],
)
def test_errors_of_a_listing_name_line_and_column(tmp_path, text, message):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        create_dataset(f"csv:{tmp_path / 'd.csv'}")


def test_a_listing_in_another_encoding_says_so(tmp_path):
    name = listing(tmp_path, ["caf\u00e9", "dog"], encoding="latin-1")
    with pytest.raises(DataError, match=r"line 2 is not utf-8.*encoding=latin-1"):
        create_dataset(name)
    assert classes(name + "?encoding=latin-1") == ["caf\u00e9", "dog"]
    with pytest.raises(UsageError, match="unknown"):
        create_dataset(name + "?encoding=klingon")


def test_classes_of_a_listing_are_those_of_all_its_rows(tmp_path):
    name = listing(tmp_path, ["b,train", "a,train", "c,train", "b,val"], header="path,label,split")
    assert create_dataset(name, "validation").targets().tolist() == [1]
    assert create_dataset(name, "validation").num_classes == 3


def test_options_have_the_types_that_the_scheme_declares(tmp_path):
    (tmp_path / "d.csv").write_text("image,0,1\n1.jpg,1,0\n2.jpg,0,1\n")
    source = create_dataset(f"csv:{tmp_path / 'd.csv'}?target_key=0,1&target_format=multihot")
    assert list(source.class_names) == ["0", "1"] and source.targets().tolist() == [[1, 0], [0, 1]]
    assert parse_source("csv:f.csv?split=0&split_key=&root=/data/c++&num_classes=7&anywhere")[2] == {
        "split": "0", "split_key": "", "root": "/data/c++", "num_classes": 7, "anywhere": True,
    }  # fmt: skip
    assert parse_source("csv:f.csv?root=/a&b/100%25")[2] == {"root": "/a&b/100%25"}
    found = parse_source("folder:f?extensions=.png,.gif&labels=no")[2]
    assert found == {
        "extensions": (".png", ".gif"),
        "labels": False,
    }
    with pytest.raises(OptionError, match="num_classes takes a whole number, not 'many'"):
        parse_source("csv:f.csv?num_classes=many")
    with pytest.raises(OptionError, match="true or false"):
        parse_source("folder:f?labels=perhaps")
    with pytest.raises(OptionError, match=r"option root of 'f.csv' is given twice, as 'a' and as 'b'"):
        parse_source("csv:f.csv?root=a&root=b")


def test_a_question_mark_may_belong_to_a_path(tmp_path):
    write_folder(tmp_path / "what?x=1", {"cat": 1, "dog": 1})
    assert classes(f"folder:{tmp_path / 'what?x=1'}") == ["cat", "dog"]
    assert len(create_dataset(f"folder:{tmp_path / 'what?x=1'}?labels=false").class_names) == 0
    write_folder(tmp_path / "c++ & co%20", {"cat": 1})
    assert len(create_dataset(f"{tmp_path / 'c++ & co%20'}")) == 1


def test_a_plugin_without_annotations_gets_the_types_of_its_defaults():
    from imgzoo.options import kinds_of
    from imgzoo_data.sources.options import convert

    def scheme(location, split="train", size=3, deep=False, name=None, share=0.5):
        return None

    kinds = kinds_of(scheme)
    assert convert("7", kinds["size"], "") == 7 and convert("true", kinds["deep"], "") is True
    assert convert("0.25", kinds["share"], "") == 0.25 and kinds["name"] is Any
    assert np.isscalar(convert("7", str, ""))


def test_two_folders_of_one_split_are_both_named(tmp_path):
    for part in ("train", "val", "validation"):
        write_folder(tmp_path / part, {"a": 1, "b": 1})
    source = create_dataset(f"folder:{tmp_path}", "validation")
    assert source.served == "folder 'validation', not 'val' beside it"
    assert create_dataset(f"folder:{tmp_path}", "val").served == "folder 'val', not 'validation' beside it"
    assert create_dataset(f"folder:{tmp_path}", "train").served == "folder 'train'"
    with pytest.raises(UsageError, match="val and validation both serve the split 'dev'"):
        create_dataset(f"folder:{tmp_path}", "dev")
    packed = tmp_path / "all.tar"
    files = {f"x/{p.relative_to(tmp_path)}": p.read_bytes() for p in tmp_path.rglob("*.jpg")}
    packed.write_bytes(tar_bytes(files))
    assert "folder 'x/validation', not 'val' beside it, in" in create_dataset(f"tar:{packed}", "validation").served


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"image,label\nx,y\n", "the file is text, not a tar"),
        (b"PK\x03\x04" + bytes(600), "a zip archive, not a tar; zip: reads it"),
        (b"\x1f\x8b" + bytes(600), "gzip data, not a tar; decompress it first"),
    ],
)
def test_a_tar_that_is_none_says_what_it_is(tmp_path, content, words):
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError, match=words):
        create_dataset(f"tar:{tmp_path / 'x.tar'}?index=false")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"there is no .tar in .*; folder: reads images"):
        create_dataset(f"tar:{tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("label", "options", "words"),
    [
        ("2000000000", {"target_format": "number"}, "class numbers go up to 2000000000"),
        ("2000000000", {"target_format": "number", "num_classes": 2_000_000_001}, "num_classes is a number from 1 to"),
        ("2000000000", {"num_classes": -1}, "num_classes is a number from 1 to"),
        ("9" * 5000, {"target_format": "number"}, "is no class number"),
    ],
)
def test_numbers_of_any_size_build_no_list_of_names(tmp_path, label, options, words):
    csv_of(tmp_path, f"path,label\n0.png,{label}\n1.png,0\n")
    with pytest.raises(ImgzooError, match=words):
        create_dataset(f"csv:{tmp_path / 'x.csv'}", **options)


def csv_of(folder, text):
    (folder / "x.csv").write_text(text)
    for number in range(2):
        Image.new("RGB", (8, 8)).save(folder / f"{number}.png")


def test_a_label_of_2e9_is_a_name(tmp_path):
    csv_of(tmp_path, "path,label\n0.png,2000000000\n1.png,5\n")
    source = create_dataset(f"csv:{tmp_path / 'x.csv'}")
    assert list(source.class_names) == ["5", "2000000000"] and source.num_classes == 2


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_class_may_be_called_as_nothing_else_is(tmp_path, kind):
    """What stands for an archive's name among the labels is no name that a folder can have."""
    names = ["<b>", "<d>", "plain"]
    files = {f"{name}/{i}.jpg": noise(10 * place + i) for place, name in enumerate(names) for i in range(2)}
    if kind == "tar":
        (tmp_path / "d.tar").write_bytes(tar_bytes(files))
    else:
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    for _ in range(2):  # the second time from the index that is kept
        found = create_dataset(f"{kind}:{tmp_path / f'd.{kind}'}")
        assert (list(found.class_names), len(found), found.left_out) == (names, 6, {})
