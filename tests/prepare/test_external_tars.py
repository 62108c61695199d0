import os
import shutil

import pytest
import webdataset

from teachonce.core import errors
from teachonce.prepare import prepare_shards
from teachonce.shards import index, sample_reader

GLOBS = {"train": ["train-*.tar"], "val": ["val-*.tar"]}


@pytest.fixture
def tars(pictures):
    """Tars as webdataset's own writer makes them: 12 training rows in 2 tars, 4 validation rows, with JSON beside."""
    pictures.root.mkdir()
    for split, count in (("train", 12), ("val", 4)):
        with webdataset.ShardWriter(str(pictures.root / f"{split}-%04d.tar"), maxcount=7, verbose=0) as writer:
            for row in range(count):
                image = pictures.encode(row, "JPEG")
                writer.write({"__key__": f"{split}_{row:03d}", "jpg": image, "cls": row % 4, "json": {"row": row}})
    return pictures.root


def message_of(data, root, out) -> str:
    with pytest.raises(errors.DataError) as caught:
        prepare_shards.prepare(data, root, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


def test_tars_are_adopted_in_place(tars, parse, tmp_path):
    before = {path.name: path.read_bytes() for path in tars.iterdir()}
    out = tmp_path / "out"
    facts = prepare_shards.prepare(parse("webdataset", **GLOBS), tars, out)
    assert [path.name for path in out.iterdir()] == ["index.json"]
    assert {path.name: path.read_bytes() for path in tars.iterdir()} == before
    assert (facts["train"]["samples"], facts["train"]["tars"], facts["val"]["samples"]) == (12, 2, 4)
    shards = index.read(out)
    assert shards.index.classes == ("0", "1", "2", "3")
    assert shards.index.rows_per_tar == 7
    assert shards.index.base == tars.as_posix()
    samples = [
        sample
        for shard in shards.index.of_split("train")
        for sample in sample_reader.verified_samples(shard, shards.path(shard))
    ]
    assert [(sample.key, sample.label) for sample in samples] == [(f"train_{row:03d}", row % 4) for row in range(12)]


def test_relative_source_keeps_the_index_movable(tars, parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_shards.prepare(parse("webdataset", **GLOBS), tars.relative_to(tmp_path), index.Path("made/shards"))
    assert index.read(index.Path("made/shards")).index.base == "../../source"
    (tmp_path / "elsewhere").mkdir()
    for name in ("made", "source"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    shards = index.read(tmp_path / "elsewhere" / "made" / "shards")
    assert all(list(sample_reader.verified_samples(shard, shards.path(shard))) for shard in shards.index.shardlist)


def test_class_names(tars, parse, tmp_path):
    prepare_shards.prepare(parse("webdataset", **GLOBS, classes=["a", "b", "c", "d"]), tars, tmp_path / "out")
    assert index.read(tmp_path / "out").index.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["a", "b", "c"], "4 rows cannot be used: train-0000.tar: train_003 has label 3, but labels end at 2;"),
        (["a", "b", "c", "d", "e"], "1 of 5 classes have no training image: e."),
        ("imagenet-1k", "996 of 1000 classes have no training image: n01494475; "),
    ],
)
def test_classes_must_fit(tars, parse, tmp_path, classes, message):
    assert message in message_of(parse("webdataset", **GLOBS, classes=classes), tars, tmp_path / "out")


def test_labels_that_start_at_one(tar_of, pictures, parse, tmp_path):
    for split in ("train", "val"):
        tar_of(pictures.root / f"{split}-0.tar", (f"{split}.png", pictures.encode(0)), (f"{split}.cls", b"1"))
    message = message_of(parse("webdataset", **GLOBS), pictures.root, tmp_path / "out")
    assert "1 of 2 classes have no training image: 0." in message


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.png", b"nonsense"), ("a.cls", b"0")], "train-9.tar: a: is not an image of a known format"),
        ([("a.png", None), ("a.cls", b"99999999999")], "a has label 99999999999, but labels end at 999999"),
        ([("a.png", None)], "train-9.tar: a has no label (.cls). Set labels: optional, or"),
        ([("a.b.png", None), ("a.b.cls", b"0")], "sample 'a' has no image; it has ['b.cls', 'b.png']"),
        ([("README", b"text")], "train-9.tar: holds no sample"),
    ],
)
def test_bad_rows(tars, tar_of, pictures, parse, *, tmp_path, members, message):
    filled = [(name, pictures.encode(1) if data is None else data) for name, data in members]
    tar_of(tars / "train-9.tar", *filled)
    assert message in message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")


def test_one_key_twice_in_a_tar(tars, tar_of, pictures, parse, tmp_path):
    pair = [(f"{key}.{kind}", data) for key in "aba" for kind, data in (("png", pictures.encode(1)), ("cls", b"0"))]
    tar_of(tars / "train-9.tar", *pair)
    message = message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")
    assert "1 rows cannot be used: train-9.tar: a is a key twice in this tar. Write that tar again with keys" in message


def test_tars_may_number_their_rows_alike(tar_of, pictures, parse, tmp_path):
    """A row's identity is (tar, row, key), so that nothing has to be written again."""
    for number, name in enumerate(("train-0.tar", "train-1.tar", "val-0.tar")):
        rows = [
            (f"{row:04d}.{kind}", data)
            for row in range(3)
            for kind, data in (
                ("png", pictures.encode(10 * number + row)),
                ("cls", str(row % 2).encode()),
            )
        ]
        tar_of(pictures.root / name, *rows)
    prepare_shards.prepare(parse("webdataset", **GLOBS), pictures.root, tmp_path / "out")
    shards = index.read(tmp_path / "out")
    keys = [
        [s.key for s in sample_reader.verified_samples(shard, shards.path(shard))] for shard in shards.index.shardlist
    ]
    assert keys == [["0000", "0001", "0002"]] * 3


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        ("copyfile", "train-copy.tar: is a copy of train: train-0000.tar. Remove one, or correct the globs"),
        ("link", "one tar is matched twice, train: train-0000.tar, by train-*.tar, and train: train-copy.tar, by tra"),
        ("symlink", "one tar is matched twice, train: train-0000.tar, by train-*.tar, and train: train-copy.tar, by "),
    ],
)
def test_one_tar_by_two_names(tars, parse, tmp_path, *, copy, message):
    make = shutil.copyfile if copy == "copyfile" else getattr(os, copy)
    make(tars / "train-0000.tar", tars / "train-copy.tar")
    assert message in message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")


def test_a_validation_tar_that_is_a_training_tar(tars, parse, tmp_path):
    shutil.copyfile(tars / "train-0001.tar", tars / "val-0001.tar")
    message = message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")
    assert "val-0001.tar: is a copy of train: train-0001.tar." in message


def test_what_is_no_file(tars, parse, tmp_path):
    os.mkfifo(tars / "train-9.tar")
    assert "train-9.tar: is no regular file." in message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")
    (tars / "train-9.tar").unlink()
    (tars / "train-9.tar").symlink_to("nowhere")
    message = message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")
    assert "train-9.tar: cannot be read (No such file or directory). Correct the link, or the globs" in message


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "a\nb", "a\x1b[31m"])
def test_keys_that_cannot_be_stored(tars, tar_of, pictures, parse, *, tmp_path, name):
    names = [f"{key}.{kind}" for key in ("ok", name, "later") for kind in ("png", "cls")]
    tar_of(tars / "train-9.tar", *((each, pictures.encode(1) if each.endswith("png") else b"0") for each in names))
    message = message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")
    assert "train-9.tar: " in message
    assert "is not UTF-8. Rename it" in message or "holds a control character. Rename it" in message
    message.encode()  # it can be printed


def test_one_class_alone(tar_of, pictures, parse, tmp_path):
    for row, split in enumerate(("train", "val")):
        tar_of(pictures.root / f"{split}-0.tar", (f"{split}.png", pictures.encode(row)), (f"{split}.cls", b"0"))
    message = message_of(parse("webdataset", **GLOBS), pictures.root, tmp_path / "out")
    assert "all labels are 0: there is nothing to tell apart. Correct the labels (.cls), or, if one class is" in message
    prepare_shards.prepare(parse("webdataset", **GLOBS, classes=["cat"]), pictures.root, tmp_path / "out")
    assert index.read(tmp_path / "out").index.classes == ("cat",)


def test_bad_rows_are_counted(tars, tar_of, parse, tmp_path):
    tar_of(tars / "train-9.tar", *[(f"{i:02d}.{k}", b"0") for i in range(14) for k in ("cls", "png")])
    message = message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")
    assert message.startswith(f"{tars}: 14 rows cannot be used: train-9.tar: 00: is not an image")
    assert message.endswith("; and 4 more. Write the tar again without the unusable images")


def test_cut_tar(tars, parse, tmp_path):
    path = tars / "train-0001.tar"
    path.write_bytes(path.read_bytes()[:1536])
    assert f"{path}: " in message_of(parse("webdataset", **GLOBS), tars, tmp_path / "out")


@pytest.mark.parametrize(
    ("globs", "message"),
    [
        ({"train": ["x-*.tar"]}, "train must be globs that each match a tar. Got x-*.tar. List the tars: ls"),
        (
            {"train": ["train-*.tar", "val-*.tar"]},
            "one tar is matched twice, train: val-0000.tar, by val-*.tar, and val: val-0000.tar, by val-*.tar. Correct",
        ),
    ],
)
def test_globs(tars, parse, tmp_path, globs, message):
    assert message in message_of(parse("webdataset", **{**GLOBS, **globs}), tars, tmp_path / "out")


@pytest.mark.parametrize("all_lack", [False, True])
def test_optional_labels(tars, tar_of, pictures, parse, tmp_path, *, all_lack):
    """Beside labelled tars, or nowhere a label: asked for, with the names that the labels cannot tell."""
    if all_lack:
        for path in tars.iterdir():
            path.unlink()
    for name in ("train-8.tar", "val-9.tar"):
        tar_of(tars / name, *((f"{name[:-4]}_{row}.png", pictures.encode(row)) for row in range(3)))
    out = tmp_path / "out"
    facts = prepare_shards.prepare(parse("webdataset", **GLOBS, classes=list("abcde"), labels="optional"), tars, out)
    labelled = (0, 0) if all_lack else (12, 4)
    shard_index = index.read(out).index
    assert shard_index.classes == tuple("abcde")
    assert (shard_index.labelled("train"), shard_index.labelled("val")) == labelled
    assert [facts[split]["samples"] - facts[split]["unlabelled"] for split in index.SPLITS] == [*labelled]
    assert [facts[split]["unlabelled"] for split in index.SPLITS] == [3, 3]


def test_optional_labels_are_labels(tars, parse, tmp_path):
    data = parse("webdataset", **GLOBS, classes=list("abc"), labels="optional")
    assert "train_003 has label 3, but labels end at 2" in message_of(data, tars, tmp_path / "out")
