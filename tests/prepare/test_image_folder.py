import io
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from teachonce.core import errors
from teachonce.prepare import prepare_shards
from teachonce.shards import decode, index, sample_reader


def rows(out, split):
    shards = index.read(out)
    return [
        sample
        for shard in shards.index.of_split(split)
        for sample in sample_reader.verified_samples(shard, shards.path(shard))
    ]


def message_of(data, root, out) -> str:
    with pytest.raises(errors.TeachonceError) as caught:
        prepare_shards.prepare(data, root, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob("*.partial"))
    return str(caught.value)


def test_given_split(pictures, parse, tmp_path):
    pictures.classes("train/")
    pictures.classes("val/", count=2)
    out = tmp_path / "out"
    facts = prepare_shards.prepare(parse("image_folder", rows_per_tar=4), pictures.root, out)
    assert facts["classes"] == 2
    assert (facts["train"]["samples"], facts["train"]["tars"], facts["val"]["samples"]) == (10, 3, 4)
    assert facts["train"]["bytes"] == sum(path.stat().st_size for path in out.glob("train-*.tar"))
    assert index.read(out).index.classes == ("cat", "dog")
    train = rows(out, "train")
    assert {sample.key for sample in train} == {f"train/{name}/{row}" for name in ("cat", "dog") for row in range(5)}
    for sample in train:
        _, name, row = sample.key.split("/")
        assert sample.label == ("cat", "dog").index(name)
        assert sample.image == (pictures.root / f"{sample.key}.png").read_bytes()  # kept, not encoded again
        assert np.array_equal(decode.rgb(sample.image, "x"), pictures.pixels(100 * sample.label + int(row)))


def test_large_images_are_stored_smaller_in_their_proportions(pictures, parse, tmp_path):
    pictures.classes(count=4)
    ramp = np.linspace(0, 255, 300).astype(np.uint8)
    wide = Image.fromarray(np.stack([np.tile(ramp, (90, 1))] * 3, axis=-1))
    turned = Image.Exif()
    turned[0x0112] = 6
    wide.save(pictures.root / "cat/wide.jpg", quality=90, exif=turned)
    wide.save(pictures.root / "cat/wide_too.bmp")
    out = tmp_path / "out"
    prepare_shards.prepare(parse("image_folder", val_fraction=0.2, max_side=100), pictures.root, out)
    images = {sample.key: sample.image for split in ("train", "val") for sample in rows(out, split)}
    kinds = {key: (decode.detect_extension(data), decode.rgb(data, key).size) for key, data in images.items()}
    # Upright already: the orientation is in the pixels, and applied once.
    assert kinds["cat/wide"] == ("jpg", (30, 100))
    assert kinds["cat/wide_too"] == ("png", (100, 30))
    assert images["cat/0"] == (pictures.root / "cat/0.png").read_bytes()
    row = np.asarray(decode.rgb(images["cat/wide_too"], "x"))[15, :, 0].astype(int)
    assert np.abs(row - np.linspace(0, 255, 100)).max() <= 4


def test_seeded_split_depends_on_keys_alone(pictures, parse, tmp_path):
    pictures.classes(count=20)
    splits = {}
    for seed in (0, 1):
        prepare_shards.prepare(
            parse("image_folder", val_fraction=0.25, split_seed=seed), pictures.root, tmp_path / f"{seed}"
        )
        splits[seed] = [[sample.key for sample in rows(tmp_path / f"{seed}", split)] for split in ("train", "val")]
    train, val = splits[0]
    assert (len(train), len(val)) == (30, 10)
    assert set(train).isdisjoint(val)
    assert splits[0] != splits[1]
    # Rows are shuffled: the first tar would mix the classes.
    assert {key.split("/")[0] for key in train[:8]} == {"cat", "dog"}


def test_more_images_only_append(pictures, parse, tmp_path):
    pictures.classes(count=20)
    indices = {}
    for count in (10, 20):
        data = parse("image_folder", val_fraction=0.25, train_images=count, val_images=3, rows_per_tar=5)
        prepare_shards.prepare(data, pictures.root, tmp_path / str(count))
        indices[count] = index.read(tmp_path / str(count)).index
    assert indices[10].of_split("train") == indices[20].of_split("train")[:2]
    assert indices[10].of_split("val") == indices[20].of_split("val")


def test_two_runs_are_byte_identical(pictures, parse, tmp_path):
    pictures.classes(count=8)
    pictures.put("dog/x.bmp", pictures.encode(1, "BMP"))
    data = parse("image_folder", val_fraction=0.5, rows_per_tar=3)
    assert prepare_shards.prepare(data, pictures.root, tmp_path / "a") == prepare_shards.prepare(
        data, pictures.root, tmp_path / "b"
    )
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names[0] == "index.json"
    assert [(tmp_path / "b" / name).read_bytes() for name in names] == [
        (tmp_path / "a" / name).read_bytes() for name in names
    ]


@pytest.mark.parametrize(
    ("form", "name", "stored"),
    [
        ("JPEG", "a.JPEG", "jpg"),
        ("PNG", "a.jpg", "png"),  # ImageNet has one
        ("WEBP", "a.webp", "webp"),
        ("BMP", "a.bmp", "png"),
        ("TIFF", "a.tif", "png"),
        ("GIF", "a.gif", "png"),
        ("PPM", "a.ppm", "png"),
    ],
)
def test_formats(pictures, parse, tmp_path, *, form, name, stored):
    pictures.classes("train/")
    pictures.classes("val/")
    data = pictures.encode(7, form)
    path = pictures.put(f"train/cat/{name}", data)
    prepare_shards.prepare(parse("image_folder"), pictures.root, tmp_path / "out")
    shards = index.read(tmp_path / "out")
    samples = {
        s.key: s for shard in shards.index.shardlist for s in sample_reader.verified_samples(shard, shards.path(shard))
    }
    sample = samples["train/cat/a"]
    assert decode.detect_extension(sample.image) == stored
    assert (sample.image == data) == (form in ("JPEG", "PNG", "WEBP"))
    assert np.array_equal(decode.rgb(sample.image, "x"), decode.rgb(path.read_bytes(), "y"))


def test_16_bit_and_profile_survive_encoding(pictures, parse, tmp_path):
    pictures.classes("train/")
    pictures.classes("val/")
    grey = (np.arange(30, dtype=np.uint16) * 2000).reshape(5, 6)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "TIFF")
    pictures.put("train/cat/deep.tiff", buffer.getvalue())
    prepare_shards.prepare(parse("image_folder"), pictures.root, tmp_path / "out")
    (sample,) = [sample for sample in rows(tmp_path / "out", "train") if sample.key == "train/cat/deep"]
    assert np.array_equal(np.asarray(decode.rgb(sample.image, "x"))[:, :, 0], np.round(grey / 257))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("cat/a.b.c.png", "cat/a%2Eb%2Ec"),
        ("cat/ü x.png", "cat/%C3%BC%20x"),
        ("cat/100%.png", "cat/100%25"),
        ("cat/" + "n" * 200 + ".png", "cat/" + "n" * 200),
        ("cat/" + "字" * 60 + ".png", "cat/" + "%E5%AD%97" * 60),
        ("cat/deep/er/__x__.png", "cat/deep/er/__x__"),
    ],
)
def test_unusual_names(pictures, parse, tmp_path, name, key):
    pictures.classes(count=1)
    pictures.put(name, pictures.encode(9))
    prepare_shards.prepare(parse("image_folder", val_fraction=0.4), pictures.root, tmp_path / "out")
    keys = [sample.key for split in index.SPLITS for sample in rows(tmp_path / "out", split)]
    assert key in keys
    assert len(keys) == 3


def test_unusual_class_names(pictures, parse, tmp_path):
    pictures.classes(names=("__v1.0__", "Größe 2", "c"))
    prepare_shards.prepare(parse("image_folder", val_fraction=0.4), pictures.root, tmp_path / "out")
    assert index.read(tmp_path / "out").index.classes == ("Größe 2", "__v1.0__", "c")
    samples = [sample for split in index.SPLITS for sample in rows(tmp_path / "out", split)]
    assert len(samples) == 15
    assert {sample.key.split("/")[0]: sample.label for sample in samples} == {
        "%5F_v1%2E0__": 1,
        "Gr%C3%B6%C3%9Fe%202": 0,
        "c": 2,
    }


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Küste") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("train", "val", "settings", "classes"),
    [
        (DECOMPOSED, COMPOSED, {}, [DECOMPOSED, "berg"]),
        (COMPOSED, DECOMPOSED, {"classes": [DECOMPOSED, "berg"]}, [DECOMPOSED, "berg"]),
        (DECOMPOSED, COMPOSED, {"classes": ["berg", COMPOSED], "labels": "optional"}, ["berg", COMPOSED]),
    ],
)
def test_an_umlaut_is_one_letter_or_two(pictures, parse, tmp_path, *, train, val, settings, classes):
    pictures.classes("train/", (train, "berg"))
    pictures.classes("val/", (val, "berg"), count=2)
    prepare_shards.prepare(parse("image_folder", **settings), pictures.root, tmp_path / "out")
    assert list(index.read(tmp_path / "out").index.classes) == classes
    counts = Counter(classes[sample.label] for sample in rows(tmp_path / "out", "val"))
    assert counts == dict.fromkeys(classes, 2)


def test_names_that_differ_in_their_spelling_alone_stay_two_classes(pictures, parse, tmp_path):
    pictures.classes("train/", (COMPOSED, DECOMPOSED))
    pictures.classes("val/", (COMPOSED, DECOMPOSED), count=2)
    assert prepare_shards.prepare(parse("image_folder"), pictures.root, tmp_path / "out")["classes"] == 2
    assert sorted(sample.label for sample in rows(tmp_path / "out", "val")) == [0, 0, 1, 1]


def test_other_files_are_counted(pictures, parse, tmp_path):
    pictures.classes()
    for name in ("README.md", "cat/.DS_Store", "cat/Thumbs.db", "dog/._0.png", "dog/notes.txt"):
        pictures.put(name, b"junk")
    facts = prepare_shards.prepare(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert facts["ignored_files"] == 4  # those within class folders
    assert facts["train"]["samples"] + facts["val"]["samples"] == 10


def spoil(pictures, count: int = 1) -> None:
    pictures.classes(count=20)
    for row in range(count):
        pictures.put(f"cat/{row}.png", b"" if row % 2 else pictures.encode(row)[:40])


def test_bad_images_are_refused_with_a_list(pictures, parse, tmp_path):
    spoil(pictures, count=14)
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert message.startswith(f"{pictures.root}: 14 of 40 images cannot be used: cat/")
    assert message.count("cat/") == 10
    assert "is empty" in message
    assert message.endswith("; and 4 more. Repair or remove them, or set on_bad_image: skip")


def test_bad_images_are_skipped_and_recorded(pictures, parse, tmp_path):
    spoil(pictures, count=3)
    pictures.put("dog/big.png", pictures.encode(1))
    data = parse("image_folder", val_fraction=0.2, on_bad_image="skip", max_pixels=30)
    Image.new("RGB", (31, 1)).save(pictures.root / "dog" / "wide.png")
    facts = prepare_shards.prepare(data, pictures.root, tmp_path / "out")
    assert facts["skipped_files"] == 4
    skipped = {bad.file: bad.reason for bad in index.read(tmp_path / "out").index.skipped}
    assert sorted(skipped) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/wide.png"]
    assert skipped["cat/1.png"] == "is empty. Replace or remove the file"
    assert skipped["dog/wide.png"].startswith("pixel count must be at most 30 (max_pixels). Got 31 x 1.")
    assert facts["train"]["samples"] + facts["val"]["samples"] == 38


def test_skipping_may_not_empty_a_class(pictures, parse, tmp_path):
    pictures.classes("train/")
    pictures.classes("val/")
    for row in range(5):
        pictures.put(f"train/cat/{row}.png", b"")
    message = message_of(parse("image_folder", on_bad_image="skip"), pictures.root, tmp_path / "out")
    assert "skipping leaves 1 classes without a training image: cat" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(pictures, parse, tmp_path):
    pictures.classes()
    (pictures.root / "cat" / "0.png").chmod(0)
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert "cat/0.png cannot be read (Permission denied)" in message


def test_vanished_file(pictures, parse, tmp_path):
    pictures.classes()
    (pictures.root / "cat" / "gone.png").symlink_to("nowhere")
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert "cat/gone.png cannot be read (No such file or directory)" in message


@pytest.mark.parametrize(
    ("files", "config", "message"),
    [
        ([], {"val_fraction": 0.5}, "cannot be listed (No such file or directory). Correct source in params.yaml"),
        (
            ["cat/0.png"],
            {},
            "has no folder train for the images of train; it has cat. Set train and val to its folders",
        ),
        (["README"], {"val_fraction": 0.5}, "holds no class folder"),
        (["cat/README", "dog/x.txt"], {"val_fraction": 0.5}, "holds no image in a class folder. Endings of images: .a"),
        (["cat/0.png", "dog/x.txt"], {"val_fraction": 0.5}, "dog: has no image. Remove the folder"),
        (
            ["cat/0.png", "1.png", "2.jpg"],
            {"val_fraction": 0.5},
            "2 images lie outside the class folders: 1.png; 2.jpg",
        ),
        (
            ["cat/a.png", "cat/a.jpg", "dog/1.png"],
            {"val_fraction": 0.5},
            "would share a key: cat/a.jpg and cat/a.png. Rename one",
        ),
        (
            ["train/a/0.png", "train/c/0.png", "val/b/0.png"],
            {},
            "1 folders are not among the 2 classes that have a folder of training images: val/b. Add training images",
        ),
        (["images/train/a/0.png", "images/val/a/0.png"], {}, "it has images. Set source to /"),
        (["a/0.png"], {"val_fraction": 0.5, "classes": ["b"]}, "1 folders are not in the list of 1 classes: a"),
        (["a/0.png"], {"val_fraction": 0.5, "classes": ["a", "b"]}, "1 of 2 classes have no training image: b. Add"),
        (
            ["a/0.png"],
            {"val_fraction": 0.5, "classes": ["a"]},
            "configs/dataset: leaves no image for val. Correct val_fraction, or add images",
        ),
        (["a/0.png", "b/1.png"], {"val_fraction": 0.5, "train_images": 3}, "train_images must be at most 1. Got 3."),
    ],
)
def test_refusals(pictures, parse, tmp_path, *, files, config, message):
    for row, name in enumerate(files):
        pictures.put(name, pictures.encode(row) if name.endswith(("png", "jpg")) else b"text")
    assert message in message_of(parse("image_folder", **config), pictures.root, tmp_path / "out")


@pytest.mark.parametrize("values", [{"val_fraction": 0.8}, {"val_fraction": 0.1, "train_images": 2}])
def test_a_split_leaves_no_class_without_a_training_image(pictures, parse, tmp_path, values):
    names = ("a", "b", "c", "d", "e")
    pictures.classes(names=names, count=2)
    data = parse("image_folder", **values)
    with pytest.raises(errors.DataError) as caught:
        prepare_shards.prepare(data, pictures.root, tmp_path / "out", where=Path("configs/dataset/x.yaml"))
    text = str(caught.value)
    assert re.match(r"configs/dataset/x\.yaml: [34] of 5 classes have no training image: \w; \w; \w", text), text
    assert text.endswith("Raise train_images, lower val_fraction, add images, or set allow_empty_classes: true")
    for accepted in ({"allow_empty_classes": True}, {"labels": "optional", "classes": names}):
        data = parse("image_folder", **values, **accepted)
        assert prepare_shards.prepare(data, pictures.root, tmp_path / "out")["train"]["samples"] == 2


def test_too_few_digits_for_their_classes(parse, tmp_path):
    data = parse("digits", val_fraction=0.5, train_images=3)
    line = message_of(data, tmp_path, tmp_path / "out")
    assert re.match(r"configs/dataset: [789] of 10 classes have no training image: \d; ", line), line
    assert line.endswith(". Raise train_images, lower val_fraction, add images")


def test_empty_classes_may_be_allowed(pictures, parse, tmp_path):
    pictures.classes()
    (pictures.root / "empty").mkdir()
    data = parse("image_folder", val_fraction=0.2, classes=["dog", "none", "empty", "cat"], allow_empty_classes=True)
    prepare_shards.prepare(data, pictures.root, tmp_path / "out")
    assert index.read(tmp_path / "out").index.classes == ("dog", "none", "empty", "cat")
    assert {sample.label for sample in rows(tmp_path / "out", "train")} == {0, 3}


def test_imagenet_folders(pictures, parse, tmp_path):
    pictures.classes(names=("n01440764", "n15075141"))
    data = parse("image_folder", val_fraction=0.2, classes="imagenet-1k", allow_empty_classes=True)
    prepare_shards.prepare(data, pictures.root, tmp_path / "out")
    names = index.read(tmp_path / "out").index.classes
    assert (len(names), names[0], names[999]) == (1000, "n01440764", "n15075141")
    assert {sample.label for sample in rows(tmp_path / "out", "train")} == {0, 999}


def test_optional_labels(pictures, parse, tmp_path):
    """An image in a class folder has its label; one in another folder, or in none, has none."""
    pictures.classes("train/", count=2)
    for row, name in enumerate(("train/loose.png", "train/walks/deep/cat/1.png", "val/b.png", "val/a/x.png")):
        pictures.put(name, pictures.encode(row))
    out = tmp_path / "out"
    data = parse("image_folder", classes=["ant", "cat", "dog"], labels="optional", rows_per_tar=4)
    facts = prepare_shards.prepare(data, pictures.root, out)
    assert {sample.key: sample.label for sample in rows(out, "train")} == {
        "train/cat/0": 1,
        "train/cat/1": 1,
        "train/dog/0": 2,
        "train/dog/1": 2,
        "train/loose": -1,
        "train/walks/deep/cat/1": -1,
    }
    assert {sample.key: sample.label for sample in rows(out, "val")} == {"val/b": -1, "val/a/x": -1}
    assert (facts["train"]["unlabelled"], facts["val"]["unlabelled"], facts["classes"]) == (2, 2, 3)


def test_no_label_at_all_from_one_folder(pictures, parse, tmp_path):
    for row in range(10):
        pictures.put(f"{row}.png", pictures.encode(row))
    pictures.put("3.txt", b"a caption")
    data = parse("image_folder", classes=["cat", "dog"], labels="optional", val_fraction=0.3)
    facts = prepare_shards.prepare(data, pictures.root, tmp_path / "out")
    assert [(facts[split]["samples"], facts[split]["unlabelled"]) for split in index.SPLITS] == [(7, 7), (3, 3)]
    assert facts["ignored_files"] == 1


def test_labels_are_required_unless_asked(pictures, parse, tmp_path):
    pictures.classes("train/")
    pictures.classes("val/")
    pictures.put("train/loose.png", pictures.encode(1))
    message = message_of(parse("image_folder", classes=["cat", "dog"]), pictures.root, tmp_path / "out")
    assert message.endswith("Move each into the folder of its class, or set labels: optional")
    (pictures.root / "train/loose.png").unlink()
    pictures.put("train/cow/1.png", pictures.encode(1))
    message = message_of(parse("image_folder", classes=["cat", "dog"]), pictures.root, tmp_path / "out")
    assert "1 folders are not in the list of 2 classes: train/cow." in message


@pytest.mark.parametrize("labels", ["required", "optional"])
def test_a_split_that_is_not_there(pictures, parse, tmp_path, labels):
    pictures.classes("train/")
    message = message_of(parse("image_folder", classes=["cat", "dog"], labels=labels), pictures.root, tmp_path / "out")
    assert message.startswith(f"{pictures.root}: has no folder val for the images of val; it has train.")


def whole_of(data, root, out) -> list[str]:
    """Keys of all that was taken."""
    prepare_shards.prepare(data, root, out)
    return sorted(sample.key for split in index.SPLITS for sample in rows(out, split))


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train", "val"), "holds train and val, which are splits, not classes. Set val_fraction: null"),
        (("train", "test"), "holds test and train, which are splits, not classes. Set val_fraction: null, val: test"),
        (("train", "validation"), "validation, which are splits, not classes. Set val_fraction: null, val: validation"),
        (
            ("train", "val", "test"),
            "holds test and train and val, which are splits, not classes. Set val_fraction: null",
        ),
        (("Training", "Test"), "which are splits, not classes. Set val_fraction: null, train: Training, val: Test"),
        (("train2017", "val2017"), "Set val_fraction: null, train: train2017, val: val2017"),
        (("seg_train", "seg_test", "seg_pred"), "Set val_fraction: null, train: seg_train, val: seg_test"),
        (("train_images", "hold-out"), "Set val_fraction: null, train: train_images, val: hold-out"),
        (("train",), "holds train, which are splits, not classes. Set source to "),
    ],
)
@pytest.mark.parametrize("config", [{}, {"classes": ["cat", "dog"]}])
def test_splits_are_no_classes(pictures, parse, tmp_path, *, folders, message, config):
    for folder in folders:
        pictures.classes(f"{folder}/")
    assert message in message_of(parse("image_folder", val_fraction=0.2, **config), pictures.root, tmp_path / "out")


def test_splits_are_no_classes_where_labels_are_optional(pictures, parse, tmp_path):
    """There, images in train/cat would have lost their labels."""
    for folder in ("train", "test"):
        pictures.classes(f"{folder}/")
    data = parse("image_folder", val_fraction=0.2, classes=["cat", "dog"], labels="optional")
    assert "are splits, not classes. Set val_frac" in message_of(data, pictures.root, tmp_path / "out")


def test_the_advice_about_splits_can_be_followed(pictures, parse, tmp_path):
    for folder in ("Train", "test"):
        pictures.classes(f"{folder}/", count=2)
    message = message_of(parse("image_folder"), pictures.root, tmp_path / "out")
    assert (
        "has no folder train for the images of train; it has Train; test. Set val_fraction: null, train: T" in message
    )
    facts = prepare_shards.prepare(parse("image_folder", train="Train", val="test"), pictures.root, tmp_path / "out")
    assert (facts["classes"], facts["train"]["samples"], facts["val"]["samples"]) == (2, 4, 4)


@pytest.mark.parametrize("names", [("train", "bus"), ("test tube", "train", "station")])
def test_a_class_may_be_a_train(pictures, parse, tmp_path, names):
    pictures.classes(names=names)
    prepare_shards.prepare(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert index.read(tmp_path / "out").index.classes == tuple(sorted(names))


def test_classes_that_are_named_may_be_splits(pictures, parse, tmp_path):
    pictures.classes(names=("train", "test"))
    prepare_shards.prepare(
        parse("image_folder", val_fraction=0.2, classes=["train", "test"]), pictures.root, tmp_path / "out"
    )
    assert index.read(tmp_path / "out").index.classes == ("train", "test")


def test_what_lies_beside_the_splits_is_told(pictures, parse, tmp_path, caplog):
    for folder in ("train", "val", "test"):
        pictures.classes(f"{folder}/")
    prepare_shards.prepare(parse("image_folder"), pictures.root, tmp_path / "out")
    assert "takes train and val; left out: test" in caplog.text


def test_images_beside_the_splits_are_told(pictures, parse, tmp_path, caplog):
    for folder in ("train", "val"):
        pictures.classes(f"{folder}/")
    pictures.put("loose.png", pictures.encode(1))
    prepare_shards.prepare(parse("image_folder"), pictures.root, tmp_path / "out")
    assert "takes train and val; left out: loose.png" in caplog.text


def test_a_loop_of_links_adds_nothing(pictures, parse, tmp_path, caplog):
    pictures.classes(count=6)
    (pictures.root / "cat/again").symlink_to("..")
    (pictures.root / "dog/self").symlink_to(".")
    (pictures.root / "dog/up").symlink_to(tmp_path)
    assert len(whole_of(parse("image_folder", val_fraction=0.5), pictures.root, tmp_path / "out")) == 12
    assert (
        "3 folders passed over that are hidden, loops, or of other programs: cat/again; dog/self; dog/up" in caplog.text
    )


@pytest.mark.parametrize("target", ["dog", "dog/deep"])
def test_one_folder_by_two_names(pictures, parse, tmp_path, target):
    pictures.classes()
    pictures.put("dog/deep/9.png", pictures.encode(9))
    (pictures.root / "cat/twin").symlink_to(pictures.root / target)
    message = message_of(parse("image_folder", val_fraction=0.5), pictures.root, tmp_path / "out")
    assert message.endswith(
        f"cat/twin and {target} are one folder by two names, so that each of its images would count twice. "
        "Remove one of the links"
    )


def test_a_link_to_another_place_is_followed(pictures, parse, tmp_path):
    pictures.classes()
    (pictures.root / "cat").rename(tmp_path / "elsewhere")
    (pictures.root / "cat").symlink_to(tmp_path / "elsewhere")
    assert len(whole_of(parse("image_folder", val_fraction=0.5), pictures.root, tmp_path / "out")) == 10


@pytest.mark.parametrize(("name", "shown"), [("cow", "cow"), ("a\nb", r"a\x0ab"), (os.fsdecode(b"\xe9"), r"\xe9")])
def test_a_class_whose_link_leads_nowhere(pictures, parse, tmp_path, name, shown):
    pictures.classes()
    (pictures.root / name).symlink_to(tmp_path / "unmounted")
    message = message_of(parse("image_folder", val_fraction=0.5), pictures.root, tmp_path / "out")
    assert f"cannot be listed ({shown} is a link that leads nowhere)." in message


@pytest.mark.parametrize("closed", ["cat/deep", "dog", "."])
def test_a_folder_that_cannot_be_listed(pictures, tmp_path, closed):
    """As a process without root's powers, from which nothing is hidden."""
    pictures.classes()
    pictures.put("cat/deep/1.png", pictures.encode(1))
    (tmp_path / "x.yaml").write_text("kind: image_folder\nval_fraction: 0.5\n")
    program = (
        "import os, sys; from pathlib import Path\n"
        "from teachonce.prepare import dataset_config, prepare_shards\n"
        "from teachonce.core import command\n"
        "data, root, out = (Path(name) for name in sys.argv[1:])\n"
        "os.umask(0); out.mkdir(); out.chmod(0o777); (root / 'CLOSED').chmod(0)\n"
        "if os.geteuid() == 0:\n"
        "    for folder in root.parents: folder.chmod(folder.stat().st_mode | 0o055)\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "command.run_stage(lambda: prepare_shards.prepare(dataset_config.load(data), root, out / 'shards'))\n"
    ).replace("CLOSED", closed)
    arguments = [sys.executable, "-c", program, tmp_path / "x.yaml", pictures.root, tmp_path / "out"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    (pictures.root / closed).chmod(0o755)
    assert f"{(pictures.root / closed).resolve()}: cannot be listed (Permission denied)." in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "out/shards").exists()


LATIN_1 = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            f"{LATIN_1}/1.png",
            "1 names cannot be stored as text: caf\\xe9 is not UTF-8. Rename it; names in another enc",
        ),
        (
            f"cat/{LATIN_1}.png",
            "/cat: 1 names cannot be stored as text: caf\\xe9.png is not UTF-8. Rename it; names in",
        ),
        (f"cat/{LATIN_1}/{LATIN_1}.png", "/cat: 1 names cannot be stored as text: caf\\xe9 is not UTF-8."),
        ("cat/a\nb.png", "/cat: 1 names cannot be stored as text: a\\x0ab.png holds a control character."),
    ],
)
@pytest.mark.parametrize("on_bad_image", ["refuse", "skip"])
def test_names_that_are_no_text(pictures, parse, tmp_path, *, name, message, on_bad_image):
    """Refused before an image is read: the file's bytes are no image."""
    pictures.classes()
    pictures.put(name, b"none")
    data = parse("image_folder", val_fraction=0.5, on_bad_image=on_bad_image)
    line = message_of(data, pictures.root, tmp_path / "out")
    assert message in line
    assert line.endswith("convmv -f latin1 -t utf8 -r --notest FOLDER" if "not UTF-8" in message else ". Rename it")


def test_what_is_no_regular_file(pictures, parse, tmp_path):
    """A pipe named as an image would be waited for."""
    pictures.classes()
    os.mkfifo(pictures.root / "cat/pipe.jpg")
    (pictures.root / "dog/zero.png").symlink_to("/dev/zero")
    (pictures.root / "dog/full.png").symlink_to("/dev/null")
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert "3 of 13 images cannot be used" in message
    assert "cat/pipe.jpg cannot be read (is no regular file)" in message
    facts = prepare_shards.prepare(
        parse("image_folder", val_fraction=0.2, on_bad_image="skip"), pictures.root, tmp_path / "out"
    )
    assert (facts["skipped_files"], facts["train"]["samples"] + facts["val"]["samples"]) == (3, 10)


def test_a_pipe_outside_the_class_folders(pictures, parse, tmp_path):
    pictures.classes()
    os.mkfifo(pictures.root / "pipe.jpg")
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert "1 images lie outside the class folders: pipe.jpg." in message


def test_a_file_that_no_image_needs_is_not_read(pictures, parse, tmp_path):
    pictures.classes()
    with (pictures.root / "cat/huge.png").open("wb") as stream:
        stream.truncate(1 << 42)
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert "cat/huge.png cannot be read (has 4,398,046,511,104 bytes, may have 536,870,912)" in message


def test_what_other_programs_leave(pictures, parse, tmp_path, caplog):
    pictures.classes()
    for name in (
        "@eaDir/cat/1.png",
        "cat/@eaDir/1.png/SYNOPHOTO_THUMB_XL.jpg",
        "__MACOSX/cat/._1.png",
        "cat/__MACOSX/1.png",
        ".ipynb_checkpoints/1.png",
        "cat/.ipynb_checkpoints/1.png",
        "#recycle/cat/1.png",
        "cat/._1.png",
        "cat/.DS_Store",
        "cat/Thumbs.db",
    ):
        pictures.put(name, pictures.encode(1))
    assert len(whole_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")) == 10
    assert index.read(tmp_path / "out").index.classes == ("cat", "dog")
    assert "7 folders passed over that are hidden, loops, or of other programs: #recycle; .ipynb_check" in caplog.text
    assert "3 files passed over that are no images by their name: " in caplog.text


def test_one_class_alone(pictures, parse, tmp_path):
    pictures.classes("images/")
    message = message_of(parse("image_folder", val_fraction=0.2), pictures.root, tmp_path / "out")
    assert "holds one class folder alone, images: there is nothing to tell apart. Set source to the folder" in message
    assert (
        len(whole_of(parse("image_folder", val_fraction=0.2, classes=["images"]), pictures.root, tmp_path / "a")) == 10
    )


def test_classes_without_an_image_are_told(pictures, parse, tmp_path, caplog):
    pictures.classes()
    (pictures.root / "cow").mkdir()
    prepare_shards.prepare(
        parse("image_folder", val_fraction=0.2, allow_empty_classes=True), pictures.root, tmp_path / "out"
    )
    assert "1 folders of classes hold no image: cow" in caplog.text
