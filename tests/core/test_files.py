import errno
import json
import os
import re
import tempfile
from pathlib import Path

import pytest

from teachonce.core import disk_errors, errors, files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_write_bytes_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "deep" / "file"
    files.write_bytes(path, b"one")
    files.write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["file"]


def test_write_bytes_does_not_touch_the_old_inode(tmp_path):
    path, other = tmp_path / "file", tmp_path / "link"
    files.write_bytes(path, b"one")
    os.link(path, other)
    files.write_bytes(path, b"two")
    assert other.read_bytes() == b"one"


def test_write_json_is_sorted_and_refuses_nan(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"b": 1, "a": "é"})
    assert path.read_bytes() == b'{\n  "a": "\xc3\xa9",\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text()) == {"a": "é", "b": 1}


def test_new_folder_replaces_the_old_one(tmp_path):
    out = tmp_path / "out"
    for name in ("old", "new"):
        with files.new_folder(out) as draft:
            (draft / name).write_text(name)
            assert not (out / "new").exists()
    assert names(out) == ["new"]
    assert names(tmp_path) == ["out"]


def test_new_folder_keeps_the_old_one_on_failure(tmp_path):
    out = tmp_path / "out"
    with files.new_folder(out) as draft:
        (draft / "old").write_text("old")

    def interrupted() -> None:
        with files.new_folder(out) as draft:
            (draft / "new").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(out) == ["old"]
    assert names(tmp_path) == ["out"]


def test_new_folder_starts_empty_after_a_crash(tmp_path):
    left = files.partial_path(tmp_path / "out")
    left.mkdir()
    (left / "half").write_text("x")
    with files.new_folder(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == []


def test_link_shares_the_inode(tmp_path):
    (tmp_path / "a").write_bytes(b"data")
    files.link_or_copy(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").samefile(tmp_path / "a")


def test_link_copies_across_file_systems(tmp_path):
    other = Path("/dev/shm")  # noqa: S108
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("one file system only")
    (tmp_path / "a").write_bytes(b"data")
    with tempfile.TemporaryDirectory(dir=other) as folder:
        target = Path(folder) / "b"
        files.link_or_copy(tmp_path / "a", target)
        assert target.read_bytes() == b"data"
        assert target.stat().st_mode & 0o777 == 0o444


def test_only_regular_files_are_opened(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="is no regular file"):
            files.open_regular(path)
    path = tmp_path / "file"
    path.write_bytes(b"four")
    assert files.read_bytes(path, 4) == b"four"
    with pytest.raises(ValueError, match="has 4 bytes, may have 3"):
        files.read_bytes(path, 3)


@pytest.mark.parametrize(
    "code",
    [
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.EMFILE,
        errno.EIO,
        errno.EPERM,
    ],
)
def test_what_the_system_refuses_is_one_line_and_a_bug_is_not(code):
    line = rf"^place: cannot be opened or written \({os.strerror(code)}\)\. \w"
    with pytest.raises(errors.DiskError, match=line), disk_errors.explain_write_errors():
        raise OSError(code, os.strerror(code), "place")
    with pytest.raises(OSError, match=os.strerror(code)), disk_errors.explain_write_errors():
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, Path.mkdir, lambda path: path.symlink_to("nothing")])
def test_a_new_folder_replaces_whatever_stands_there(tmp_path, make):
    for name in ("out", "out.partial", "out.old.partial"):
        make(tmp_path / name)
    with files.new_folder(tmp_path / "out") as draft:
        (draft / "x").write_text("new")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["out", "out/x"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_is_said_of_writing_need_not_name_the_file(code):
    line = rf"^place: cannot be written \({os.strerror(code)}\)\. \w"
    with pytest.raises(errors.DiskError, match=line), disk_errors.explain_write_errors("place"):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINVAL, errno.EBADF])
def test_other_refusals_keep_their_traceback(code):
    with pytest.raises(OSError, match=os.strerror(code)), disk_errors.explain_write_errors():
        raise OSError(code, os.strerror(code), "place")


def test_no_folder_is_copied_in_a_way_that_hides_what_the_system_said():
    """`shutil.copytree` and `move` raise an error of their own, which `full_disk` cannot tell from a bug."""
    package = Path(files.__file__).parents[1]
    assert not [path for path in package.rglob("*.py") if re.search(r"shutil\.(copytree|move)\(", path.read_text())]


def test_a_copied_folder_has_every_file(tmp_path):
    for name in ("a", "deep/er/b"):
        files.write_bytes(tmp_path / "from" / name, name.encode())
    (tmp_path / "to").mkdir()
    files.copy_folder(tmp_path / "from", tmp_path / "to")
    copied = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert copied == {"a", "deep/er/b"}
    assert (tmp_path / "to/deep/er/b").read_bytes() == b"deep/er/b"
