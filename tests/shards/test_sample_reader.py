"""Tars: written and read back, damaged and refused."""

import gc
import io
import tarfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import webdataset
from hypothesis import strategies

from teachonce.core import errors, files
from teachonce.prepare import tar_writer
from teachonce.shards import index, sample_reader

KEYS = strategies.text("abcXYZ019_-/%", min_size=1, max_size=150).filter(
    lambda key: not key.startswith(("/", "_")) and not key.endswith("/") and "//" not in key
)
ROWS = strategies.lists(
    strategies.tuples(
        KEYS,
        strategies.sampled_from(["jpg", "png", "webp"]),
        strategies.binary(max_size=1500),
        strategies.integers(-1, 99999),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda row: row[0],
)


def make(
    folder: Path, count: int = 10, rows_per_tar: int = 4
) -> tuple[list[tar_writer.EncodedImage], list[index.Shard]]:
    samples = [
        tar_writer.EncodedImage(f"c{row % 3}/{row:03d}", "png", bytes([row]) * (400 + row), row % 3)
        for row in range(count)
    ]
    folder.mkdir(exist_ok=True)
    return samples, list(tar_writer.write_samples(samples, folder, split="train", rows_per_tar=rows_per_tar))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(rows=ROWS, rows_per_tar=strategies.integers(1, 5))
def test_what_is_written_is_read(tmp_path_factory, rows, rows_per_tar):
    folder = tmp_path_factory.mktemp("tars")
    samples = [tar_writer.EncodedImage(*row) for row in rows]
    shards = list(tar_writer.write_samples(samples, folder, split="val", rows_per_tar=rows_per_tar))
    assert [shard.nsamples for shard in shards[:-1]] == [rows_per_tar] * (len(shards) - 1)
    read_back = [sample for shard in shards for sample in sample_reader.verified_samples(shard, folder / shard.url)]
    assert [(sample.key, sample.image, sample.label) for sample in read_back] == [(r[0], r[2], r[3]) for r in rows]
    assert [sample.row for sample in read_back] == [row % rows_per_tar for row in range(len(rows))]
    assert sum(shard.unlabelled for shard in shards) == sum(row[3] == index.UNLABELLED for row in rows)
    for shard in shards:
        measured = sample_reader.index_tar(folder / shard.url, url=shard.url, split="val", visit=lambda _: None)
        assert measured == shard


def test_bytes_depend_on_the_samples_alone(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_others_read_the_tars(tmp_path):
    samples, shards = make(tmp_path)
    urls = [str(tmp_path / shard.url) for shard in shards]
    read = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()  # webdataset leaves the files to the collector, which would warn in a later test
    assert [(row["__key__"], row["png"], int(row["cls"])) for row in read] == [
        (sample.key, sample.image, sample.label) for sample in samples
    ]
    with tarfile.open(urls[0]) as tar:
        member = tar.getmembers()[0]
    assert (member.mtime, member.uname, member.gname, member.mode) == (0, "root", "root", 0o444)


def refusal(shard: index.Shard, path: Path) -> str:
    """The message of the refusal, before which no sample was given."""
    with pytest.raises(errors.DataError) as caught:
        next(sample_reader.verified_samples(shard, path))
    return str(caught.value)


def adopted(path: Path) -> list[sample_reader.Sample]:
    """The samples of a tar that was written elsewhere."""
    samples: list[sample_reader.Sample] = []
    sample_reader.index_tar(path, url="x.tar", split="train", visit=samples.append)
    return samples


def test_tar_cut_between_members(tmp_path):
    _, shards = make(tmp_path)
    path = tmp_path / shards[0].url
    with tarfile.open(path) as tar:
        boundary = tar.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:boundary])
    message = refusal(shards[0], path)
    assert message.startswith(f"{path}: bytes must be as indexed, {shards[0].bytes}. Got {boundary}. Restore it:")
    with pytest.raises(errors.DataError, match=f"is cut after byte {boundary:,}: the end mark of a tar is missing"):
        sample_reader.index_tar(path, url="x.tar", split="train", visit=lambda _: None)


def test_members_lost_at_the_same_size(tmp_path):
    _, shards = make(tmp_path)
    path = tmp_path / shards[0].url
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        boundary = tar.getmembers()[4].offset
    path.write_bytes(data[:boundary].ljust(len(data), b"\0"))
    message = refusal(shards[0], path)
    assert message.startswith(f"{path}: samples must be as indexed, 4. Got 2.")


def test_tar_cut_inside_a_member(tmp_path):
    _, shards = make(tmp_path)
    path = tmp_path / shards[0].url
    with tarfile.open(path) as tar:
        inside = tar.getmembers()[5].offset_data + 100
    path.write_bytes(path.read_bytes()[:inside])
    assert refusal(shards[0], path).startswith(f"{path}: bytes must be as indexed")
    with pytest.raises(errors.DataError, match=r"is not a whole tar \(unexpected end of data at byte [0-9,]+\)"):
        adopted(path)


def test_swapped_tars(tmp_path):
    _, shards = make(tmp_path, count=8)
    message = refusal(shards[0].model_copy(update={"bytes": shards[1].bytes}), tmp_path / shards[1].url)
    assert f"{shards[1].url}: the crc32 of its keys must be as indexed, {shards[0].keys_crc32}." in message


def test_changed_byte(tmp_path):
    _, shards = make(tmp_path)
    path = tmp_path / shards[0].url
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        data[tar.getmembers()[3].offset_data + 7] ^= 1
    path.write_bytes(data)
    message = refusal(shards[0], path)
    assert message.startswith(f"{path}: sha256 must be as indexed, {shards[0].sha256}. Got ")


def test_damaged_header_does_not_hide_the_rest(tmp_path):
    _, shards = make(tmp_path)
    path = tmp_path / shards[0].url
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        header = tar.getmembers()[4].offset
    data[header + 10] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.DataError, match=rf"\(a damaged header at byte {header:,}\)"):
        sample_reader.index_tar(path, url="x.tar", split="train", visit=lambda _: None)
    assert f"(a damaged header at byte {header:,})" in refusal(shards[0], path)


@pytest.mark.parametrize("unlabelled", [0, 1])
def test_a_lost_label_is_no_unlabelled_sample(tmp_path, unlabelled):
    """Where the index knows of none, the first one is named; where it knows of some, the tar's digest does."""
    samples, _ = make(tmp_path, count=4)
    samples[3] = replace(samples[3], label=-1 if unlabelled else 0)
    (shard,) = tar_writer.write_samples(samples, tmp_path, split="train", rows_per_tar=4)
    assert shard.unlabelled == unlabelled
    assert [sample.label for sample in sample_reader.verified_samples(shard, tmp_path / shard.url)] == [
        0,
        1,
        2,
        -unlabelled,
    ]
    other = tmp_path / "other"
    other.mkdir()
    (lost,) = tar_writer.write_samples(
        [replace(samples[0], label=-1), *samples[1:]], other, split="train", rows_per_tar=4
    )
    message = refusal(shard.model_copy(update={"bytes": lost.bytes}), other / lost.url)
    if unlabelled:
        assert message.startswith(f"{other / lost.url}: sha256 must be as indexed, {shard.sha256}. Got ")
    else:
        assert "train-000000.tar: sample 'c0/000' must have a label (.cls), as indexed. Got none. Restore" in message


def test_missing_tar(tmp_path):
    _, shards = make(tmp_path)
    (tmp_path / shards[0].url).unlink()
    message = refusal(shards[0], tmp_path / shards[0].url)
    assert message.endswith(
        "cannot be read (No such file or directory). Restore it: dvc checkout, or dvc pull; "
        "where DVC does not hold it, from where it came; "
        "where the tars lie elsewhere, set TEACHONCE_SHARDS_BASE to their folder"
    )


def tar_of(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.cls", b"1")], "sample 'a' has no image; it has ['cls']"),
        ([("a.jpg", b"1"), ("a.cls", b"cat")], "label of sample 'a' must be an ASCII integer. Got b'cat'"),
        ([("a.jpg", b"1"), ("a.cls", b"-1")], "label of sample 'a' must be an ASCII integer. Got b'-1'"),
        (
            [("a.1.jpg", b"1"), ("a.1.cls", b"1")],
            "it has ['1.cls', '1.jpg']. Write the tar again so that the name of each image has one dot: ",
        ),
        (
            [("a.left.png", b"1"), ("a.right.png", b"1"), ("a.cls", b"1")],
            "it has ['cls', 'left.png', 'right.png']. Write the tar again so that the name of each image has one dot",
        ),
        ([("a.jpg", b"1"), ("a.jpg", b"2")], "'a.jpg' is there twice. Write the tar again without the second one"),
        (
            [("a.png", b"1"), ("a.jpg", b"2"), ("a.cls", b"1")],
            "sample 'a' has 2 images, a.png and a.jpg. Write the tar again with one image a sample",
        ),
        (
            [("a.jpg", b"1"), ("b.jpg", b"1"), ("a.cls", b"1"), ("b.cls", b"1")],
            "the members of sample 'a' lie apart; ['cls'] come after other samples. Write the tar again with the mem",
        ),
        (
            [("a.cls", b"1"), ("b.cls", b"1"), ("a.jpg", b"1"), ("b.jpg", b"1")],
            "sample 'a' has no image; it has ['cls']. Write the tar again with the members of each sample one behind ",
        ),
        (
            [("./a.jpg", b"1"), ("a.cls", b"1")],
            "one sample has two names, './a' and 'a'; sample 'a' has no image; it has ['cls']. Write the tar again w",
        ),
    ],
)
def test_malformed_samples(tmp_path, members, message):
    path = tar_of(tmp_path / "x.tar", *members)
    with pytest.raises(errors.DataError) as caught:
        adopted(path)
    assert message in str(caught.value)


def test_samples_that_an_index_vouches_for_were_sound_once(tmp_path):
    samples, _ = make(tmp_path, count=2)
    (shard,) = tar_writer.write_samples(samples, tmp_path, split="train", rows_per_tar=4)
    content = [(f"{sample.key}.{kind}", b"1") for kind in ("png", "cls") for sample in samples]
    path = tar_of(tmp_path / "x.tar", *content)
    message = refusal(shard.model_copy(update={"bytes": path.stat().st_size}), path)
    assert "the members of sample 'c0/000' lie apart; ['cls'] come after other samples. Restore it: dvc ch" in message


@pytest.mark.parametrize("size", [3, 2000])
@pytest.mark.parametrize(
    ("magic", "program"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"BZh9", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x04\x22\x4d\x18", "lz4"),
    ],
)
def test_a_compressed_tar_is_known_by_its_first_bytes(tmp_path, magic, program, size):
    path = tmp_path / "x.tar"
    path.write_bytes(magic + b"\xff" * size)
    with pytest.raises(errors.DataError) as caught:
        adopted(path)
    assert str(caught.value).startswith(
        f"{path}: is compressed with {program}. Unpack it: {program} -dc FILE > FILE.tar"
    )


def test_a_member_may_begin_as_a_compressed_file(tmp_path):
    path = tar_of(tmp_path / "x.tar", ("BZh91.jpg", b"1"), ("BZh91.cls", b"1"))
    assert [sample.key for sample in adopted(path)] == ["BZh91"]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_is_not_unpacked(tmp_path, mode):
    """A few kilobytes of it can become terabytes."""
    with tarfile.open(tmp_path / "x.tar", mode) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 1 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    with pytest.raises(errors.DataError, match=r"is compressed with \w+\. Unpack it: \w+ -dc"):
        adopted(tmp_path / "x.tar")


@pytest.mark.parametrize("size", [2**62, 2**40, -(2**40)])
@pytest.mark.parametrize("name", ["a.jpg", "a.cls", "README"])
def test_no_size_in_a_header_is_believed(tmp_path, name, size):
    path = tar_of(tmp_path / "x.tar", ("README", b"1"), ("a.jpg", b"1"), ("a.cls", b"1"))
    info = tarfile.TarInfo(name)
    info.size = size
    data, header = path.read_bytes(), info.tobuf(tarfile.GNU_FORMAT)
    at = data.index(name.encode())
    path.write_bytes(data[:at] + header + data[at + len(header) :])
    tracemalloc.start()
    try:
        with pytest.raises(errors.DataError, match=r"unexpected end of data|negative size|must be at most"):
            adopted(path)
        assert tracemalloc.get_traced_memory()[1] < 5e6
    finally:
        tracemalloc.stop()


def test_the_holes_of_a_sparse_member_are_not_filled(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        data = b"1\n0\n1\n".ljust(512, b"\0") + b"x"
        info.size = len(data)
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**50)}
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(errors.DataError, match=r"\('a\.jpg' is a sparse file\)"):
        adopted(path)


def test_a_key_has_a_longest_length(tmp_path):
    key = f"{'a' * 200}/" * 20 + "é" * 38
    path = tar_of(tmp_path / "x.tar", (f"{key}.jpg", b"1"), (f"{key}.cls", b"1"))
    assert adopted(path)[0].key == key
    path = tar_of(tmp_path / "y.tar", (f"{key}é.jpg", b"1"), (f"{key}é.cls", b"1"))
    with pytest.raises(errors.DataError, match=r"key of row 0 must be at most 4096 bytes\. Got aaa.*Rename"):
        adopted(path)


def test_other_members_are_passed_over(tmp_path):
    path = tar_of(tmp_path / "x.tar", ("a.JPEG", b"1"), ("a.cls", b"7\n"), ("a.json", b"{}"), ("a.pyd", b"evil"))
    (sample,) = adopted(path)
    assert (sample.key, sample.image, sample.label) == ("a", b"1", 7)


def test_tar_without_samples(tmp_path):
    path = tar_of(tmp_path / "x.tar", ("README", b"1"))
    with pytest.raises(errors.DataError, match="holds no sample"):
        sample_reader.index_tar(path, url="x.tar", split="train", visit=lambda _: None)


@pytest.mark.parametrize("way", ["replaced", "written into"])
def test_what_is_read_is_what_was_verified(tmp_path, way):
    """Also where the tar changes while it is read, and where it was read before."""
    _, shards = make(tmp_path)
    path = tmp_path / shards[0].url
    data = bytearray(path.read_bytes())
    expected = list(sample_reader.verified_samples(shards[0], path))
    samples = sample_reader.verified_samples(shards[0], path)
    assert next(samples) == expected[0]
    with tarfile.open(path) as tar:
        for member in tar.getmembers()[1::2]:
            data[member.offset_data + 7] ^= 1
    if way == "replaced":
        files.write_bytes(path, bytes(data))
        assert list(samples) == expected[1:]
    else:
        path.write_bytes(data)
        with pytest.raises(errors.DataError, match=r"has changed since its sha256 was compared \(sample 'c1/001'\)"):
            next(samples)
    with pytest.raises(errors.DataError, match=r"has changed since its sha256 was compared \(sample 'c0/000'\)"):
        next(sample_reader.verified_samples(shards[0], path))


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_a_link_is_no_label(tmp_path, kind):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("a.jpg", "a.cls", "b.jpg", "b.cls"):
            info = tarfile.TarInfo(name)
            info.size = 1
            if name == "b.cls":
                info.type, info.linkname, info.size = kind, "a.cls", 0
            tar.addfile(info, io.BytesIO(b"1"))
    with pytest.raises(
        errors.DataError, match=r"'b\.cls' must be a file\. Got a link to one\. Write .*--hard-dereference"
    ):
        adopted(path)


def test_headers_in_a_chain(tmp_path):
    """Each would be followed by recursion in the standard library's reader."""
    info = tarfile.TarInfo("n" * 150 + ".jpg")
    long_name = info.tobuf(tarfile.GNU_FORMAT)[:-512]
    path = tar_of(tmp_path / "x.tar", ("a.jpg", b"1"))
    path.write_bytes(long_name + path.read_bytes())
    assert [sample.key for sample in adopted(path)] == ["n" * 150]
    path.write_bytes(long_name * 3000 + path.read_bytes())
    with pytest.raises(errors.DataError, match="two headers of one kind for a member"):
        adopted(path)


@pytest.mark.parametrize("name", [b"a\nb.jpg", b"a\0b.jpg", b"a\xe2\x80\xa8b.jpg", b"caf\xe9.jpg", b"a\x1b[2Jb.jpg"])
def test_a_name_is_text(tmp_path, name):
    record = b"%d path=%b\n" % (len(name) + 9, name)
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    path = tar_of(tmp_path / "x.tar", ("x.jpg", b"1"))
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0") + path.read_bytes())
    with pytest.raises(
        errors.DataError,
        match=r"the name .* (is not UTF-8|holds a control char.*)\. Rename it, and",
    ):
        adopted(path)


def listed(folder: Path, shardlist: list[index.Shard], classes: str) -> index.Shards:
    """The tars as an index of so many classes names them."""
    index.write(folder, base=folder, classes=tuple(classes), rows_per_tar=4, shardlist=shardlist)
    return index.read(folder)


def test_a_label_beyond_the_classes_of_the_index(tmp_path):
    """A tar may be whole and as indexed, and yet hold a label that its index does not name."""
    samples, _ = make(tmp_path, count=4)
    samples[2] = replace(samples[2], label=10**17)
    shardlist = list(tar_writer.write_samples(samples, tmp_path, split="train", rows_per_tar=4))
    (shard,) = listed(tmp_path, shardlist, "abc").index.shardlist
    path = tmp_path / shard.url
    assert refusal(shard, path).startswith(f"{path}: label of 'c2/002' must be below 3, the classes. Got {10**17}. ")
    labels = [sample.label for sample in sample_reader.verified_samples(shardlist[0], path)]
    assert labels[2] == 10**17, "of no index yet: its maker lists what is wrong itself"


@pytest.mark.parametrize(("claimed", "without"), [(4, 0), (1, 2), (3, 2)])
def test_an_index_that_is_wrong_about_the_labels(tmp_path, claimed, without):
    samples, _ = make(tmp_path, count=4)
    samples[:without] = [replace(sample, label=-1) for sample in samples[:without]]
    shardlist = list(tar_writer.write_samples(samples, tmp_path, split="train", rows_per_tar=4))
    lying = [shard.model_copy(update={"unlabelled": claimed}) for shard in shardlist]
    shards = listed(tmp_path, lying, "abc")
    (shard,) = shards.index.shardlist
    path = shards.path(shard)
    expected = f"{path}: samples without a label must be as indexed, {claimed}. Got {without}."
    assert refusal(shard, path).startswith(expected)
    if claimed == 4:
        with pytest.raises(errors.DataError, match="samples without a label must be as indexed, 4"):
            sample_reader.count_labelled(shards, "train")


def test_what_has_no_labels_is_believed_once_its_tars_say_so(tmp_path):
    samples, _ = make(tmp_path, count=4)
    samples = [replace(sample, label=-1) for sample in samples]
    shards = listed(tmp_path, list(tar_writer.write_samples(samples, tmp_path, split="train", rows_per_tar=4)), "abc")
    assert sample_reader.count_labelled(shards, "train") == 0
    assert sample_reader.count_labelled(shards, "val") == 0
