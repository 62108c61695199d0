import json

import fsspec
import pytest

from teachonce.core import errors
from teachonce.shards import index

SHARD = index.Shard(url="train-000000.tar", nsamples=3, split="train", bytes=10, sha256="0" * 64, keys_crc32=1)


def write(folder, base):
    folder.mkdir(parents=True, exist_ok=True)
    return index.write(folder, base=base, classes=("a", "ü"), rows_per_tar=3, shardlist=[SHARD])


def test_round_trip(tmp_path):
    written = write(tmp_path, tmp_path)
    shards = index.read(tmp_path)
    assert shards.index == written
    assert shards.index.nsamples("train") == 3
    assert shards.index.of_split("val") == ()
    assert json.loads((tmp_path / "index.json").read_text())["shardlist"][0]["url"] == "train-000000.tar"


def test_labels_are_counted_by_split(tmp_path):
    some = SHARD.model_copy(update={"url": "b.tar", "sha256": "1" * 64, "unlabelled": 2})
    val = SHARD.model_copy(update={"url": "c.tar", "sha256": "2" * 64, "split": "val"})
    index.write(tmp_path, base=tmp_path, classes=("a",), rows_per_tar=3, shardlist=[SHARD, some, val])
    shard_index = index.read(tmp_path).index
    assert (shard_index.labelled("train"), shard_index.labelled("val")) == (4, 3)
    # Data that have all their labels keep the index that earlier releases wrote, and read.
    assert ["unlabelled" in shard for shard in json.loads((tmp_path / "index.json").read_text())["shardlist"]] == [
        False,
        True,
        False,
    ]


def test_tars_beside_the_index_move_with_it(tmp_path):
    assert write(tmp_path / "a", tmp_path / "a").base == "."
    (tmp_path / "a").rename(tmp_path / "b")
    assert index.read(tmp_path / "b").path(SHARD) == tmp_path / "b" / "train-000000.tar"


def test_absolute_and_relative_bases(tmp_path, monkeypatch):
    assert write(tmp_path / "a", tmp_path / "tars").base == (tmp_path / "tars").as_posix()
    monkeypatch.chdir(tmp_path)
    assert write(tmp_path / "artifacts" / "shards", index.Path("tars")).base == "../../tars"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format must be 1. Got 2. Make it again: dvc repro -f prepare"),
        ({"rows_per_tar": "3"}, "rows_per_tar is refused"),
        ({"shardlist": [{**SHARD.model_dump(), "url": "../x.tar"}]}, "must be a path below base. Got ../x.tar"),
        ({"shardlist": [{**SHARD.model_dump(), "split": "test"}]}, "shardlist.0.split is refused"),
        ({"shardlist": [{**SHARD.model_dump(), "unlabelled": 4}]}, "unlabelled must be at most nsamples, 3"),
        ({"shardlist": [{**SHARD.model_dump(), "classes": 99}]}, "shardlist.0.classes is refused: is no key of a tar"),
        ({"shardlist": [SHARD.model_dump()] * 2}, "shardlist is refused: a tar is listed twice, train-000000.tar"),
        (
            {"shardlist": [SHARD.model_dump(), {**SHARD.model_dump(), "url": "twin.tar", "split": "val"}]},
            f"shardlist is refused: a tar is listed twice, {'0' * 64}",
        ),
        ({"shardlist": [{**SHARD.model_dump(), "url": "a\0.tar"}]}, "url is refused: a name that holds a control char"),
        ({"shardlist": [{**SHARD.model_dump(), "url": "a\nb.tar"}]}, "url is refused: a name that holds a control c"),
        ({"shardlist": [{**SHARD.model_dump(), "url": "\udce9.tar"}]}, "index.json: "),
        ({"classes": ["a", "b\x1b[31m"]}, "classes.1 is refused: a name that holds a control character"),
    ],
)
def test_damaged_index(tmp_path, change, message):
    data = write(tmp_path, tmp_path).model_dump(mode="json")
    (tmp_path / "index.json").write_text(json.dumps({**data, **change}))
    with pytest.raises(errors.DataError) as caught:
        index.read(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "index.json"))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", [None, "{", "[]"])
def test_unreadable_index(tmp_path, text):
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    with pytest.raises(errors.DataError, match=r"index\.json: .*dvc repro"):
        index.read(tmp_path)


def test_the_environment_says_where_the_tars_lie_now(tmp_path, monkeypatch):
    write(tmp_path / "a", tmp_path / "tars")
    monkeypatch.setenv(index.BASE, str(tmp_path / "moved"))
    assert index.read(tmp_path / "a").path(SHARD) == tmp_path / "moved" / "train-000000.tar"
    assert index.read(tmp_path / "a").resolved().base == tmp_path / "moved"


def test_an_index_behind_a_url(tmp_path, monkeypatch):
    """Its tars lie beside it, or where the environment says; a folder of its maker's machine is looked for here."""
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    memory = fsspec.filesystem("memory")

    def at(base: str) -> index.Shards:
        written = write(tmp_path / "a", tmp_path / "a").model_copy(update={"base": base})
        memory.pipe("/shards/index.json", written.model_dump_json().encode())
        return index.read("memory://shards")

    copies = tmp_path / "copies/memory/shards"
    assert (at(".").base, at("tars").base) == (copies, copies / "tars")
    assert at("/data/tars").base.as_posix() == "/data/tars"
    with pytest.raises(errors.DataError, match=r"base must be a path below it\. Got \.\./tars\. Set TEACHONCE_SHARDS_"):
        at("../tars")
    monkeypatch.setenv(index.BASE, "memory://tars")
    assert at("../tars").base == tmp_path / "copies/memory/tars"


def test_an_index_may_be_named_by_the_url_of_a_file_and_its_tars_too(tmp_path, monkeypatch):
    write(tmp_path / "a b", tmp_path / "a b" / "tars")
    url = f"file://{tmp_path}/a%20b"
    assert index.read(url).path(SHARD) == tmp_path / "a b" / "tars" / "train-000000.tar"
    monkeypatch.setenv(index.BASE, url)
    assert index.read(tmp_path / "a b").path(SHARD) == tmp_path / "a b" / "train-000000.tar"


def test_a_base_that_is_a_url_is_no_folder_below(tmp_path, monkeypatch):
    written = write(tmp_path, tmp_path).model_copy(update={"base": "s3://bucket/tars"})
    (tmp_path / "index.json").write_text(written.model_dump_json())
    with pytest.raises(errors.DataError, match=r"base must be a path, not a URL\. Got s3://bucket/tars\. Set TEACHON"):
        index.read(tmp_path)
    monkeypatch.setenv(index.BASE, str(tmp_path))
    assert index.read(tmp_path).path(SHARD) == tmp_path / "train-000000.tar"


def test_no_more_of_a_tar_is_fetched_than_the_index_tells(tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    memory = fsspec.filesystem("memory")
    written = write(tmp_path / "a", tmp_path / "a").model_copy(update={"base": "."})
    memory.pipe("/bounded/index.json", written.model_dump_json().encode())
    memory.pipe("/bounded/train-000000.tar", bytes(SHARD.bytes + 1))
    with pytest.raises(errors.DataError, match=rf"train-000000\.tar: bytes must be at most {SHARD.bytes:,}\. Got more"):
        index.read("memory://bounded").path(SHARD)
