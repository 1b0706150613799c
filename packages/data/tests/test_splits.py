"""No split is served by another in silence; what is shared, left out or held back is said."""

import json
import os
import shutil

import numpy as np
import pytest
from data_helpers import noise, tar_bytes, write_folder

from imgzoo.errors import DataError, UsageError
from imgzoo_data import create_dataset, open_splits
from imgzoo_data.sources import describe
from imgzoo_data.sources.base import Sample, Source
from imgzoo_data.sources.layout import SplitError, split_of
from imgzoo_data.sources.splits import hold_out
from imgzoo_data.sources.views import Subset


def place(root, names: dict[str, int]):
    """Folder -> number of images, all different."""
    seed = 0
    for name, count in names.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / name / f"{number}.png").write_bytes(noise(seed, (9, 8), "PNG"))
            seed += 1
    return root


def keys(source):
    return [source.key(i) for i in range(len(source))]


@pytest.mark.parametrize(
    ("name", "split"),
    [("Training", "train"), ("TRAIN", "train"), ("train2017", "train"), ("train_set", "train"), ("Testing", "test"),
     ("dev", "validation"), ("Valid", "validation"), ("val", "validation"), ("validation-images", "validation"),
     ("trainer", None), ("value", None), ("contest", None), ("cat", None)],
)  # fmt: skip
def test_folders_are_named_after_splits(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize("names", [("Training", "Testing"), ("train", "test", "meta"), ("train",), ("TRAIN", "TEST")])
@pytest.mark.parametrize("wrapper", ["", "archive/data"])
def test_a_folder_without_validation_split_is_refused_and_says_how_to_get_one(tmp_path, names, wrapper):
    root = tmp_path / "d"
    for name in names:
        place(root / wrapper / name, {"cat": 3, "dog": 3} if name != "meta" else {})
        (root / wrapper / name).mkdir(exist_ok=True)
    assert len(create_dataset(f"folder:{root}")) == 6
    with pytest.raises(SplitError, match=names[0]):
        create_dataset(f"folder:{root}", "validation")
    with pytest.raises(SplitError, match=r"--val-share 0\.1"):
        open_splits(f"folder:{root}")


def test_an_archive_of_another_split_is_offered_by_its_name(tmp_path):
    for name, seed in (("train-00", 0), ("test-00", 50)):
        files = {f"{label}/{number}.png": noise(seed + number, (9, 8), "PNG") for label in "ab" for number in range(2)}
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(files))
    with pytest.raises(SplitError, match=r"choose one with --val-split test$"):
        open_splits(f"tar:{tmp_path}")
    assert len(create_dataset(f"tar:{tmp_path}", "test")) == 4


def test_a_class_without_images_is_said(tmp_path):
    place(tmp_path, {"train/a": 2, "train/b": 2, "train/c": 2})
    (tmp_path / "classes.txt").write_text("zero\na\nb\nc\n")
    source = create_dataset(f"folder:{tmp_path}", "train", class_map=tmp_path / "classes.txt")
    assert "note: no images of 'zero'" in str(source.describe())
    assert "no images" not in str(create_dataset(f"folder:{tmp_path}", "train").describe())


@pytest.mark.parametrize("kind", ["folder", "tar", "zip", "csv", "lines", "labels", "wds", "val_share"])
def test_an_image_under_two_labels_is_said(tmp_path, kind):
    place(tmp_path / "d", {"cat": 3, "dog": 3})
    shutil.copy(tmp_path / "d" / "cat" / "1.png", tmp_path / "d" / "dog" / "same.png")
    shutil.copy(tmp_path / "d" / "cat" / "1.png", tmp_path / "d" / "cat" / "same.png")  # no second label
    name, first, second = f"folder:{tmp_path / 'd'}", "cat/1.png", "dog/same.png"
    if kind in ("tar", "zip"):
        shutil.make_archive(str(tmp_path / "d"), kind, tmp_path / "d")
        name, first, second = f"{kind}:{tmp_path / 'd'}.{kind}", f"d.{kind}:./cat/1.png", f"d.{kind}:./dog/same.png"
        first, second = (key.replace("./", "") if kind == "zip" else key for key in (first, second))
    elif kind == "wds":
        files = {path: path.read_bytes() for path in sorted((tmp_path / "d").rglob("*.png"))}
        parts = {f"{p.parent.name}-{p.stem}.{k}": b if k == "png" else p.parent.name.encode()
                 for p, b in files.items() for k in ("png", "cls")}  # fmt: skip
        (tmp_path / "d.tar").write_bytes(tar_bytes(parts))
        name, first, second = f"wds:{tmp_path / 'd.tar'}?target_format=class", "cat-1", "dog-same"
    elif kind in ("csv", "lines", "labels"):
        rows = [f"d/{path.parent.name}/{path.name},{path.parent.name}" for path in (tmp_path / "d").rglob("*.png")]
        rows = ["d/cat/1.png,cat", "d/dog/1.png,dog", "d/cat/1.png,dog"] if kind == "lines" else sorted(rows)
        (tmp_path / "d.csv").write_text("\n".join(["image,label", *rows]))
        name, first, second = f"csv:{tmp_path / 'd.csv'}", "d/cat/1.png", f"d/{second}"
        second = first if kind == "lines" else second
    option = "?target_format=labels" if kind == "labels" else ""
    labels = ("", "") if option else (" (cat)", " (dog)")
    said = f"1 image under two labels, the first '{first}'{labels[0]} and '{second}'{labels[1]}"
    if kind == "val_share":  # copies are never parted
        assert any(said in line for line in open_splits(name, val_share=0.3).lines())
    else:
        assert said in create_dataset(name + option).describe().notes


def test_a_source_that_reads_its_samples_for_their_labels_is_not_read_whole():
    read = set()

    class Slow(Source):
        class_names, num_classes, name = ("a", "b"), 2, "slow"

        def __len__(self):
            return 500

        def __getitem__(self, index):
            read.add(int(index))
            return Sample(np.full((4, 4, 3), index % 200, np.uint8), index % 2, str(index))

        def place(self, index):
            return str(index)

    for source in (Slow(), Subset(Slow(), np.arange(400))):
        assert source.describe().classes == 2
    assert len(read) <= 64


def test_images_to_compare_are_read_within_bounds(tmp_path, monkeypatch):
    place(tmp_path, {"cat": 3, "dog": 3})
    shutil.copy(tmp_path / "cat" / "1.png", tmp_path / "dog" / "same.png")
    source = create_dataset(f"folder:{tmp_path}")
    assert any("two labels" in note for note in source.describe().notes)
    for name in ("COMPARED", "MOST_READ"):
        with monkeypatch.context() as patch:
            patch.setattr(describe, name, 5)
            assert not any("two labels" in note for note in source.describe().notes)


def test_a_test_split_validates_only_when_it_is_named(tmp_path):
    place(tmp_path, {"train/a": 2, "train/b": 2})
    for number, name in enumerate("ab"):
        place(tmp_path, {f"test/{name}": 0})
        (tmp_path / "test" / name / "x.png").write_bytes(noise(90 + number, (9, 8), "PNG"))
    with pytest.raises(SplitError, match="--val-split test"):
        open_splits(f"folder:{tmp_path}")
    splits = open_splits(f"folder:{tmp_path}", val_split="test")
    assert (len(splits.train), len(splits.validation)) == (4, 2)


def test_a_flat_folder_serves_one_split_at_a_time(tmp_path):
    place(tmp_path, {"cat": 3, "dog": 3})
    assert len(create_dataset(f"folder:{tmp_path}", "validation")) == 6
    assert "names a split" in str(create_dataset(f"folder:{tmp_path}").describe())
    with pytest.raises(SplitError, match="no validation split"):
        open_splits(f"folder:{tmp_path}")


@pytest.mark.parametrize("tars", [("train.tar", "test.tar"), ("train-000.tar", "train-001.tar"), ("train.tar",)])
def test_tar_sets_without_validation(tmp_path, tars):
    for number, name in enumerate(tars):
        (tmp_path / name).write_bytes(
            tar_bytes({f"{c}/{number}.jpg": noise(9 * number + i) for i, c in enumerate("ab")})
        )
    for scheme in ("tar", "wds"):
        with pytest.raises(SplitError, match=r"train.*\.tar"):
            create_dataset(f"{scheme}:{tmp_path}", "validation")
    with pytest.raises(SplitError, match="--val-share"):
        open_splits(f"tar:{tmp_path}")


def test_splits_inside_one_archive(tmp_path):
    files = {f"set/{s}/{c}/{i}.jpg": noise(k) for k, (s, c, i) in enumerate(
        (s, c, i) for s in ("Train", "Val") for c in ("ant", "bee") for i in range(2))}  # fmt: skip
    (tmp_path / "d.tar").write_bytes(tar_bytes(files))
    splits = open_splits(f"tar:{tmp_path / 'd.tar'}")
    assert list(splits.train.class_names) == ["ant", "bee"] and len(splits.train) == len(splits.validation) == 4
    assert all("/Train/" in key for key in keys(splits.train)) and "set/Train" in str(splits)


@pytest.mark.parametrize("text", ["path,label\na.jpg,x\nb.jpg,y\n", "path,label,split\na.jpg,x,train\nb.jpg,y,train\n"])
def test_a_csv_without_validation_rows(tmp_path, text):
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(noise(ord(name)))
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(SplitError, match="--val-share"):
        open_splits(f"csv:{tmp_path / 'd.csv'}")


def test_folds_of_a_csv(tmp_path):
    lines = ["path,label,fold"]
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(noise(number))
        lines.append(f"{number}.jpg,{'xy'[number // 3]},{number % 3}")
    (tmp_path / "d.csv").write_text("\n".join(lines))
    with pytest.raises(SplitError, match=r"column .fold. holds 0, 1, 2.*fold=0"):
        create_dataset(f"csv:{tmp_path / 'd.csv'}")
    splits = open_splits(f"csv:{tmp_path / 'd.csv'}?fold=1")
    assert keys(splits.validation) == ["1.jpg", "4.jpg"] and keys(splits.train) == ["0.jpg", "2.jpg", "3.jpg", "5.jpg"]
    assert len(create_dataset(f"csv:{tmp_path / 'd.csv'}?split=0")) == 2
    assert len(create_dataset(f"csv:{tmp_path / 'd.csv'}?split_key=")) == 6


def test_two_folders_for_one_split_are_refused(tmp_path):
    place(tmp_path, {"train/a": 1, "val/a": 1, "valid/a": 1})
    assert len(create_dataset(f"folder:{tmp_path}", "valid")) == 1
    with pytest.raises(UsageError, match=r"val and valid both"):
        create_dataset(f"folder:{tmp_path}", "validation")


def test_a_class_named_like_a_split_is_not_guessed(tmp_path):
    place(tmp_path, {"train": 2, "car": 2, "plane": 2})
    with pytest.raises(UsageError, match=r"split or a class beside car, plane.*search_split=false"):
        create_dataset(f"folder:{tmp_path}")
    source = create_dataset(f"folder:{tmp_path}?search_split=false")
    assert list(source.class_names) == ["car", "plane", "train"]


@pytest.mark.parametrize("how", ["copy", "link", "same"])
def test_shared_samples_are_refused_unless_asked_for(tmp_path, how):
    place(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 0, "val/b": 0})
    (tmp_path / "val" / "a" / "new.png").write_bytes(noise(70, (9, 8), "PNG"))
    (tmp_path / "val" / "b" / "new.png").write_bytes(noise(71, (9, 8), "PNG"))
    if how == "copy":
        shutil.copy(tmp_path / "train" / "a" / "1.png", tmp_path / "val" / "a" / "other.png")
    elif how == "link":
        os.symlink(tmp_path / "train" / "a" / "1.png", tmp_path / "val" / "a" / "other.png")
    else:
        shutil.rmtree(tmp_path / "val")
        os.symlink(tmp_path / "train", tmp_path / "val")
    with pytest.raises(UsageError, match=r"also training images, the first 'a/.*--allow-shared"):
        open_splits(f"folder:{tmp_path}")
    splits = open_splits(f"folder:{tmp_path}", allow_shared=True)
    assert splits.shared.startswith("6 of 6" if how == "same" else "1 of 3")


def test_an_option_that_serves_one_split_twice_is_refused(tmp_path):
    place(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 1})
    with pytest.raises(UsageError, match="also training"):
        open_splits(f"folder:{tmp_path}?split=train")


def test_val_share_is_stratified_reproducible_and_written_down(tmp_path):
    place(tmp_path, {"cat": 20, "dog": 10, "emu": 1})
    splits = open_splits(f"folder:{tmp_path}", val_share=0.2)
    assert np.bincount(splits.validation.targets(), minlength=3).tolist() == [4, 2, 0]
    assert not set(keys(splits.train)) & set(keys(splits.validation))
    assert sorted(keys(splits.train) + keys(splits.validation)) == sorted(keys(create_dataset(f"folder:{tmp_path}")))
    again = open_splits(f"folder:{tmp_path}", val_share=0.2)
    assert keys(again.validation) == keys(splits.validation)
    written = [line.split(",") for line in splits.rows().splitlines()[1:]]
    assert {key for key, split in written if split == "validation"} == set(keys(splits.validation))
    assert json.dumps(splits.to_dict())


def test_val_share_does_not_depend_on_where_the_folder_lies(tmp_path):
    place(tmp_path / "here", {"cat": 9, "dog": 9})
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    rows = [hold_out(create_dataset(f"folder:{tmp_path / name}"), 0.3)[1].tolist() for name in ("here", "there")]
    assert rows[0] == rows[1] and len(rows[0]) == 6


def test_val_share_leaves_copies_in_training(tmp_path):
    place(tmp_path, {"cat": 30, "dog": 30})
    for number in range(30):
        shutil.copy(tmp_path / "cat" / f"{number}.png", tmp_path / "cat" / f"copy{number}.png")
    splits = open_splits(f"folder:{tmp_path}", val_share=0.1)
    assert splits.shared.startswith("no samples") and any("copies" in note for note in splits.description[1].notes)


def test_folds_share_each_class_and_meet_nowhere(tmp_path):
    place(tmp_path, {"cat": 12, "dog": 8, "emu": 4})
    seen = []
    for fold in range(4):
        splits = open_splits(f"folder:{tmp_path}", folds=4, fold=fold)
        assert np.bincount(splits.validation.targets()).tolist() == [3, 2, 1]
        assert not set(keys(splits.train)) & set(keys(splits.validation))
        assert len(splits.train) + len(splits.validation) == 24
        seen += keys(splits.validation)
    assert sorted(seen) == sorted(keys(create_dataset(f"folder:{tmp_path}")))
    with pytest.raises(UsageError, match="no fold 4 of 4"):
        open_splits(f"folder:{tmp_path}", folds=4, fold=4)
    with pytest.raises(UsageError, match="no 25 folds"):
        open_splits(f"folder:{tmp_path}", folds=25)
    with pytest.raises(UsageError, match="--folds holds back"):
        open_splits(f"folder:{tmp_path}", folds=2, val_source="digits:")


@pytest.mark.parametrize("options", [{"val_source": "digits:"}, {"val_split": "test"}])
def test_val_share_goes_with_no_other_validation(options):
    with pytest.raises(UsageError, match="leave out"):
        open_splits("digits:", val_share=0.1, **options)
    with pytest.raises(UsageError, match="between 0 and 1"):
        open_splits("digits:", val_share=2)


def test_one_class_is_refused(tmp_path):
    place(tmp_path, {"train/cat": 3, "val/cat": 0})
    (tmp_path / "val" / "cat" / "x.png").write_bytes(noise(50, (9, 8), "PNG"))
    with pytest.raises(UsageError, match="single class 'cat'"):
        open_splits(f"folder:{tmp_path}")


def test_a_description_says_what_there_is(tmp_path):
    place(tmp_path, {"train/a": 4, "train/b": 2, "val/a": 0, "val/b": 0})
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "a" / ".DS_Store").write_text("x")
    for number, name in enumerate("ab"):
        (tmp_path / "val" / name / "v.png").write_bytes(noise(80 + number, (9, 8), "PNG"))
    text = str(open_splits(f"folder:{tmp_path}"))
    wanted = ["train: 6 images of 2 classes (2 to 4 each)", "folder 'train'", "classes by the folder's name"]
    wanted += ["1 files .txt", "1 hidden files", "folder 'val'", "8-bit values", "shared: no samples, compared"]
    for part in wanted:
        assert part in text, part


def test_a_range_that_contradicts_the_images_is_refused_before_the_first_batch(tmp_path):
    for number, (split, name) in enumerate((s, c) for s in ("train", "val") for c in "ab"):
        (tmp_path / split / name).mkdir(parents=True)
        array = np.random.default_rng(number).integers(0, 4096, (9, 9)).astype(np.uint16)
        np.save(tmp_path / split / name / "x.npy", array)
    with pytest.raises(DataError, match="range=4095"):
        open_splits(f"folder:{tmp_path}")
    splits = open_splits(f"folder:{tmp_path}", options={"range": "4095"})
    assert splits.train.range == splits.validation.range == (0, 4095)


def test_digits_are_described():
    text = str(open_splits("digits:"))
    assert "1,437 images of 10 classes" in text and "shared: no samples" in text


def test_streams_of_the_same_shards_are_refused(tmp_path):
    files = {
        f"{i}.{kind}": noise(i) if kind == "jpg" else str(i % 2).encode() for i in range(4) for kind in ("jpg", "cls")
    }
    (tmp_path / "d.tar").write_bytes(tar_bytes(files))
    for options in ("", "?streaming&num_classes=2"):
        with pytest.raises(SplitError, match="no validation split"):
            open_splits(f"wds:{tmp_path / 'd.tar'}{options}")


def test_a_flat_folder_of_torchvision_is_one_split(tmp_path):
    place(tmp_path, {"cat": 2, "dog": 2})
    with pytest.raises(SplitError, match="no validation split"):
        open_splits(f"torchvision:folder?root={tmp_path}")


@pytest.mark.parametrize("named", [False, True])
def test_one_split_of_a_hugging_face_set_is_not_served_twice(tmp_path, named):
    pytest.importorskip("datasets")
    from test_multilabel import save_hugging_face

    rows = [{"label": name} for name in ("a", "b", "a", "b")]
    save_hugging_face(tmp_path / "d", rows, {"label": __import__("datasets").Value("string")})
    with pytest.raises(UsageError, match="also training images" if named else "no validation split"):
        open_splits(f"hf:{tmp_path / 'd'}", f"hf:{tmp_path / 'd'}" if named else "")


def test_listed_files_that_are_not_there_are_counted_before_they_are_read(tmp_path):
    write_folder(tmp_path, {"a": 8, "b": 8})
    rows = [f"{name}/{number}.jpg,{name}" for name in "ab" for number in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["image,label", *rows]))
    said = create_dataset(f"csv:{tmp_path / 'list.csv'}").describe()
    assert said.samples == 20 and not said.contradictions
    assert said.notes[1:] == [f"not there: 4 listed files, the first '{tmp_path / 'a' / '8.jpg'}'"]
    splits = open_splits(f"csv:{tmp_path / 'list.csv'}", val_share=0.5)
    assert "\n".join(splits.lines()).count("not there: ") == 2
    with pytest.raises(DataError, match=r"none of the listed files is there, .*; pass root="):
        open_splits(f"csv:{tmp_path / 'list.csv'}?root={tmp_path / 'a'}", val_share=0.5)


def test_rows_of_no_split_are_counted(tmp_path):
    write_folder(tmp_path, {"a": 4, "b": 4})
    splits = ("train", "val", "", "trian")
    rows = [f"{name}/{number}.jpg,{name},{splits[number]}" for name in "ab" for number in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["image,label,split", *rows]))
    source = create_dataset(f"csv:{tmp_path / 'list.csv'}")
    assert len(source) == 2 and source.left_out == {"rows of split ''": 2, "rows of split 'trian'": 2}
    assert create_dataset(f"csv:{tmp_path / 'list.csv'}", "trian").left_out == {"rows of split ''": 2}


def test_what_paths_lack_is_advised(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 2})
    listing, ids = tmp_path / "list.csv", [(f"{name}/{number}", name) for name in "ab" for number in range(2)]
    listing.write_text("\n".join(["id,label", *(f"{path},{name}" for path, name in ids)]))
    with pytest.raises(DataError, match=r"none of the listed files is there, .*; pass ending=\.jpg, which they lack$"):
        open_splits(f"csv:{listing}?image_key=id", val_share=0.5)
    splits = open_splits(f"csv:{listing}?image_key=id&ending=.jpg", val_share=0.5)
    assert len(splits.train) == 2 and splits.train[0].data and splits.train.key(0).endswith(".jpg")
    listing.write_text("\n".join(["image,label", *(rf"{name}\{path[2:]}.jpg,{name}" for path, name in ids)]))
    with pytest.raises(DataError, match=r"write / for \\ in their paths$"):
        open_splits(f"csv:{listing}", val_share=0.5)


def test_rows_that_stand_there_twice_are_said(tmp_path):
    write_folder(tmp_path, {"a": 2, "b": 2})
    rows = [f"{name}/{number}.jpg,{name}" for name in "ab" for number in (0, 1, 1)]
    (tmp_path / "list.csv").write_text("\n".join(["image,label", *rows]))
    notes = create_dataset(f"csv:{tmp_path / 'list.csv'}").describe().notes
    assert "2 images listed more than once, the first 'a/1.jpg'" in notes and not [
        n for n in notes if "two labels" in n
    ]


@pytest.mark.parametrize(("cells", "said"), [(("a", "NaN"), True), (("a", "nano"), False), (("a", "None"), True)])
def test_a_label_that_says_nothing_is_said(tmp_path, cells, said):
    write_folder(tmp_path, {"a": 2})
    listing = tmp_path / "list.csv"
    listing.write_text("\n".join(["image,label", *(f"a/{number}.jpg,{cell}" for number, cell in enumerate(cells))]))
    wanted = [f"the class {cells[1]!r} looks like a missing label"] if said else []
    assert create_dataset(f"csv:{listing}").notes == wanted
    assert create_dataset(f"csv:{listing}", class_map=list(cells)).notes == []  # whoever declares it means it


@pytest.mark.parametrize("mark", [";", "|", ","])
def test_cells_of_several_labels_are_said_to_look_like_them(tmp_path, mark):
    write_folder(tmp_path, {"a": 4})
    cells = ["ant", f"ant{mark}bee", "bee", f"cat{mark} dog"]
    text = "\n".join(["image\tlabel", *(f"a/{number}.jpg\t{cell}" for number, cell in enumerate(cells))])
    (tmp_path / "list.tsv").write_text(text)
    notes = create_dataset(f"csv:{tmp_path / 'list.tsv'}").notes
    assert len(notes) == 1 and f"'ant{mark}bee'" in notes[0] and "target_format=labels" in notes[0]
    read = create_dataset(f"csv:{tmp_path / 'list.tsv'}?target_format=labels")
    assert read.class_names == ["ant", "bee", "cat", "dog"] and not read.notes
    (tmp_path / "list.tsv").write_text(text.replace(f"ant{mark}bee", f"fir{mark}elm"))
    assert not create_dataset(f"csv:{tmp_path / 'list.tsv'}").notes  # a mark alone is a name as any other


@pytest.mark.parametrize(
    ("cells", "said"), [(("1.5", "2", "-3e2"), True), (("1", "2", "3"), False), (("1.5", "v2", "3"), False)]
)
def test_names_that_are_numbers_with_fractions_are_said_to_look_like_them(tmp_path, cells, said):
    write_folder(tmp_path, {"a": 3})
    rows = [f"a/{number}.jpg,{cell}" for number, cell in enumerate(cells)]
    (tmp_path / "list.csv").write_text("\n".join(["image,label", *rows]))
    notes = create_dataset(f"csv:{tmp_path / 'list.csv'}").notes
    assert [note for note in notes if "--task regression" in note] == list(notes)
    assert bool(notes) == said


def test_parts_that_serve_one_split_are_told_apart_by_an_option(tmp_path):
    for part in ("train", "val", "valid"):
        write_folder(tmp_path / part, {"a": 2, "b": 2})
    with pytest.raises(SplitError, match=r"val and valid both serve .* choose one with --val-split val"):
        open_splits(f"folder:{tmp_path}")
    assert len(open_splits(f"folder:{tmp_path}", val_split="val", allow_shared=True).validation) == 4
    (tmp_path / "train").rename(tmp_path / "training")
    write_folder(tmp_path / "trn", {"a": 2, "b": 2})
    with pytest.raises(SplitError, match=r"training and trn both serve .* as --data, and what validates as --val-data"):
        open_splits(f"folder:{tmp_path}", val_split="val")


@pytest.mark.parametrize("asked, others", [("val_share", "--val-data and --val-split"),
                                           ("folds", "--val-data, --val-split and --val-share")])  # fmt: skip
def test_what_holds_back_is_left_out_or_what_it_contradicts(tmp_path, asked, others):
    flag = f"--{asked.replace('_', '-')}"
    with pytest.raises(UsageError, match=f"leave out {flag}, or {others}$"):
        open_splits(f"folder:{tmp_path}", val_split="val", **{asked: 0.5 if asked == "val_share" else 2})
