"""Good shards, changed at random: refused in one line, or they give the very samples that they held.

python -m pytest tests/shards/test_fuzz.py -s      # prints the count of each outcome
"""

import shutil
import tarfile
from pathlib import Path

import changes
import pytest

from teachonce.prepare import tar_writer
from teachonce.shards import index, sample_reader

Rows = list[tuple[str, bytes, int]]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Three tars, of which one has long names and one an image without a label."""
    folder = tmp_path_factory.mktemp("fuzz") / "shards"
    folder.mkdir()
    samples = [
        tar_writer.EncodedImage(
            f"{'long/' * 30 if 4 <= row < 8 else ''}{row:03d}", "png", bytes([row]) * (400 + row), row % 3
        )
        for row in range(10)
    ]
    samples[9] = tar_writer.EncodedImage("unlabelled", "jpg", b"x" * 512, index.UNLABELLED)
    entries = list(tar_writer.write_samples(samples, folder, split="train", rows_per_tar=4))
    index.write(folder, base=folder, classes=("a", "b", "c"), rows_per_tar=4, shardlist=entries)
    return folder


def indexed(folder: Path) -> Rows:
    """All that a consumer takes from indexed shards."""
    opened = index.read(folder)
    return [
        (sample.key, sample.image, sample.label)
        for shard in opened.index.of_split("train")
        for sample in sample_reader.verified_samples(shard, opened.path(shard))
    ]


def adopted(path: Path) -> Rows:
    """All that an index of somebody's tar would hold."""
    rows: Rows = []
    sample_reader.index_tar(
        path,
        url="x.tar",
        split="train",
        visit=lambda sample: rows.append((sample.key, sample.image, sample.label)),
    )
    return rows


def plainly(path: Path) -> Rows:
    """The samples of a tar, by Python's own reader."""
    groups: dict[str, dict[str, bytes]] = {}
    order: list[str] = []
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            stem, _, extension = name.partition(".")
            if not (member.isreg() and stem and extension.rpartition(".")[2].lower() in ("png", "jpg", "cls")):
                continue
            key = folder + slash + stem
            if not order or order[-1] != key:
                order.append(key)
                groups[key] = {}
            groups[key][extension.lower()] = tar.extractfile(member).read()
    return [
        (key, groups[key].get("jpg") or groups[key]["png"], int(groups[key].get("cls", index.UNLABELLED)))
        for key in order
    ]


def test_indexed_shards(shards, tmp_path):
    expected, tally = indexed(shards), changes.Tally("indexed shards")
    for number in range(changes.COUNT):
        draw = changes.stream("indexed", number)
        # By another path each: a process remembers the tars it has verified.
        with changes.fresh(shards, tmp_path / str(number)) as root:
            path = draw.choice(sorted(root.iterdir()))
            if path.suffix == ".json" and draw.random() < 0.7:
                what = changes.Json(draw).any(path)
            elif draw.random() < 0.2:
                other = draw.choice(sorted(root.glob("*.tar")))
                what = f"{other.name} in place of {path.name}"
                data = other.read_bytes()
                path.write_bytes(data)
            else:
                what = changes.Bytes(draw).any(path)

            def act(root=root) -> str:
                rows, text = changes.refusal(lambda: indexed(root))
                if text:
                    return "refused"
                # Fewer tars, in another order or under other names of classes, are other shards, and no damage.
                assert all(row in expected for row in rows), "a sample that was never there"
                return "harmless" if rows == expected else "other tars"

            tally.take(f"{number}: {what}", act)
    tally.end()
    assert tally.outcomes["refused"] > tally.outcomes.total() / 2


FIELDS = ((0, 100), (100, 8), (124, 12), (124, 12), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155))


def header(data: bytearray, at: int, draw) -> str:
    """Change a field of a header, with a checksum that agrees."""
    field, size = draw.choice(FIELDS)
    text = draw.choice(
        (
            b"\0" * size,
            b"7" * size,
            b"0" * (size - 1) + b"\0",
            b"-1",
            b"\x80" + bytes(size - 1),
            b"\xff" * size,
            b"\x80" + b"\xff" * (size - 1),
            bytes(draw.randrange(256) for _ in range(size)),
            draw.choice((b"x", b"L", b"K", b"g", b"S", b"1", b"2", b"5", b"6", b"7", b"D")),
            b"a.png",
            b"dir/.b.png",
            b"%011o" % draw.choice((0, 1, 511, 512, 513, 2**20, 2**33 - 1)),
        )
    )
    data[at + field : at + field + size] = text[:size].ljust(size, b"\0")
    block = bytes(data[at : at + 512])
    total = sum(block) - sum(block[148:156]) + 8 * 32
    data[at + 148 : at + 156] = b"%06o\0 " % total
    return f"header at {at}: {field} = {text[:20]!r}"


def alter(path: Path, headers: list[int], draw) -> str:
    data, at = bytearray(path.read_bytes()), draw.choice(headers)
    if draw.random() < 0.6:
        what = header(data, at, draw)
        path.write_bytes(data)
        return what
    if draw.random() < 0.2:
        block = bytes(data[: draw.choice((512, 1024, 1536))])
        path.write_bytes(data[:at] + block * draw.choice((1, 200)) + data[at:])
        return f"{len(block)} bytes of its begin again at {at}"
    return changes.Bytes(draw).any(path, grow=False)


def test_tars_of_others(shards, tmp_path):
    """Taken as Python's own reader takes them, or refused."""
    tally = changes.Tally("tars of others")
    good = {}
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            good[path.name] = [info.offset for info in tar.getmembers()]
    for number in range(changes.COUNT):
        draw = changes.stream("adopted", number)
        name = draw.choice(sorted(good))
        path = Path(shutil.copy(shards / name, tmp_path / f"{number}.tar"))
        path.chmod(0o644)
        what = alter(path, good[name], draw)

        def act(path=path) -> str:
            rows, text = changes.refusal(lambda: adopted(path))
            if text:
                return "refused"
            assert rows == plainly(path), "other samples than Python's own reader gives"
            return "taken alike"

        tally.take(f"{number}: {what}", act)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    tally.end()
    assert {"refused", "taken alike"} <= tally.outcomes.keys()
