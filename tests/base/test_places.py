"""Files behind URLs, from a real S3 endpoint through real sockets that break."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import endpoint
import fsspec
import pytest

from pipeline.base import errors, hashing, places

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 1000
SHA256 = hashing.sha256(DATA)


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch):
    """A bucket behind a proxy, reached from this process; copies go to tmp_path/copies."""
    name = f"bucket-{hashing.digest(str(tmp_path))[:12]}"
    s3.client().create_bucket(Bucket=name)
    s3.client().put_object(Bucket=name, Key="a/b/one.tar", Body=DATA)
    with endpoint.proxy(s3) as (through, seen):
        for key, value in {**through.environment, places.COPIES: str(tmp_path / "copies")}.items():
            monkeypatch.setenv(key, value)
        forget()
        yield Bucket(s3, name, seen, tmp_path / "copies")
        forget()


def forget() -> None:
    """fsspec keeps one filesystem a process; here each test has an endpoint of its own."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


class Bucket:
    def __init__(self, s3, name, seen, copies):
        self.s3, self.name, self.seen = s3, name, seen
        self.copy = copies / "s3" / name / "a" / "b" / "one.tar"

    def folder(self) -> places.Folder:
        return places.folder(f"s3://{self.name}/a/b", errors.DataError)

    def put(self, data: bytes) -> None:
        self.s3.client().put_object(Bucket=self.name, Key="a/b/one.tar", Body=data)


def refusal(kind: type[errors.TeachonceError], folder: places.Folder, name: str = "one.tar") -> str:
    with pytest.raises(kind) as caught:
        folder.file(name, SHA256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_here_is_read_where_it_lies(tmp_path):
    folder = places.folder(tmp_path, errors.DataError)
    assert folder.file("a/b", SHA256) == tmp_path / "a/b"
    assert not folder.holds("a/b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"123")
    assert folder.holds("a/b")
    assert folder.sizes() == {"a/b": 3}
    assert str(places.folder(str(tmp_path), errors.DataError)) == str(tmp_path)


def test_an_argument_is_a_path_or_stays_a_url():
    assert places.where("artifacts/shards") == Path("artifacts/shards")
    assert places.where("s3://bucket/shards") == "s3://bucket/shards"


@pytest.mark.parametrize("url", ["s3://", "s3://bucket/../other", "../x://bucket", "s3://bucket/./a", "cached::s3://x"])
def test_a_url_cannot_lead_out_of_the_copies(url):
    with pytest.raises(errors.ConfigError, match=r"URL: it must be scheme://folder, without \. and \.\.\. Got "):
        places.folder(url, errors.DataError)


def test_any_filesystem_of_fsspec_will_do(tmp_path, monkeypatch):
    monkeypatch.setenv(places.COPIES, str(tmp_path))
    fsspec.filesystem("memory").pipe("/some/where/x/y", DATA)
    folder = places.folder("memory://some/where/", errors.DataError)
    assert folder.file("x/y", SHA256).read_bytes() == DATA
    assert folder.sizes() == {"x/y": len(DATA)}


def test_a_file_is_fetched_once(bucket):
    for _ in range(2):
        folder = bucket.folder()
        assert folder.file("one.tar", SHA256).read_bytes() == DATA
        assert folder.file("one.tar", SHA256) == bucket.copy
    assert bucket.seen.requests == [("GET", f"/{bucket.name}/a/b/one.tar")]


def test_a_file_without_a_digest_is_fetched_by_each_reader(bucket):
    assert bucket.folder().file("one.tar").read_bytes() == DATA
    bucket.put(b"grown")
    assert bucket.folder().file("one.tar").read_bytes() == b"grown"


def test_processes_that_ask_at_once_fetch_once(bucket):
    code = (
        "from pipeline.base import errors, places\n"
        f"folder = places.folder('s3://{bucket.name}/a/b', errors.DataError)\n"
        f"print(len(folder.file('one.tar', '{SHA256}').read_bytes()))"
    )
    asking = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
    assert [int(process.communicate()[0]) for process in asking] == [len(DATA)] * 3
    assert len(bucket.seen.gets("one.tar")) == 1


def test_one_listing_tells_what_is_there(bucket):
    for number in range(3):
        bucket.s3.client().put_object(Bucket=bucket.name, Key=f"a/b/c/{number}", Body=b"12")
    folder = bucket.folder()
    assert [folder.holds(name) for name in ("c/0", "c/2", "c/3", "c", "one.tar")] == [True, True, False, False, True]
    assert folder.sizes() == {"c/0": 2, "c/1": 2, "c/2": 2, "one.tar": len(DATA)}
    assert len(bucket.seen.requests) == bucket.seen.listings() == 1


def test_what_was_fetched_ahead_is_not_fetched_again(bucket):
    folder = bucket.folder()
    for name in ("one.tar", "nothing.tar"):
        folder.ahead(name, SHA256)
    for thread in threading.enumerate():
        if thread.name == "ahead":
            thread.join(timeout=60)
    assert bucket.copy.read_bytes() == DATA
    assert folder.file("one.tar", SHA256) == bucket.copy
    assert refusal(errors.DataError, folder, "nothing.tar").startswith(
        f"s3://{bucket.name}/a/b/nothing.tar: is missing"
    )
    assert len(bucket.seen.gets("one.tar")) == 1


def test_a_dropped_connection_is_tried_again(bucket):
    bucket.seen.drops["one.tar"] = 3
    assert bucket.folder().file("one.tar", SHA256).read_bytes() == DATA
    assert bucket.seen.cut == 3
    assert len(bucket.seen.gets("one.tar")) == 4


def test_connections_that_always_drop_end_in_one_line(bucket):
    bucket.seen.drops["one.tar"] = 1000
    message = refusal(errors.StorageError, bucket.folder())
    assert message.startswith(f"s3://{bucket.name}/a/b/one.tar: cannot be read (")
    assert message.endswith("Check URL, network and endpoint (AWS_ENDPOINT_URL), then run the same command again")
    assert not bucket.copy.exists()


def test_another_file_than_recorded_is_refused_until_it_is_repaired(bucket):
    for wrong in (DATA[:-1], b"x" + DATA[1:]):
        bucket.put(wrong)
        message = refusal(errors.DataError, bucket.folder())
        assert message.startswith(f"s3://{bucket.name}/a/b/one.tar: sha256 must be as recorded, {SHA256}. Got ")
        assert not bucket.copy.exists()
    bucket.put(DATA)
    assert bucket.folder().file("one.tar", SHA256).read_bytes() == DATA


def test_a_copy_that_rotted_is_fetched_again(bucket):
    bucket.folder().file("one.tar", SHA256)
    bucket.copy.write_bytes(DATA[:100])
    assert bucket.folder().file("one.tar", SHA256).read_bytes() == DATA


def test_a_copy_that_was_deleted_is_fetched_again(bucket):
    folder = bucket.folder()
    folder.file("one.tar", SHA256).unlink()
    assert folder.file("one.tar", SHA256).read_bytes() == DATA


def test_what_is_not_there_is_named(bucket):
    message = refusal(errors.DataError, bucket.folder(), "two.tar")
    assert message.startswith(f"s3://{bucket.name}/a/b/two.tar: is missing (")
    with pytest.raises(errors.CacheError, match="s3://no-such-bucket/a: is missing"):
        places.folder("s3://no-such-bucket/a", errors.CacheError).holds("x")


def test_credentials(bucket, monkeypatch):
    cure = "Check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    bucket.s3.require_credentials()
    try:
        assert refusal(errors.StorageError, bucket.folder()).endswith(cure)
    finally:
        bucket.s3.require_credentials(after="inf")
    forget()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert refusal(errors.StorageError, bucket.folder()).endswith(cure)


def test_an_endpoint_that_is_down(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{endpoint.free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    forget()
    message = refusal(errors.StorageError, bucket.folder())
    assert "Could not connect to the endpoint" in message
    assert message.endswith("Check URL, network and endpoint (AWS_ENDPOINT_URL), then run the same command again")


def test_without_s3fs_the_cure_is_named(tmp_path):
    (tmp_path / "s3fs.py").write_text("raise ImportError\n")
    code = (
        "from pipeline.base import errors, places\n"
        "try: places.folder('s3://bucket/a', errors.DataError).file('x')\n"
        "except errors.StorageError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": path, places.COPIES: str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("s3://bucket/a/x: cannot be read (")
    assert done.stdout.endswith("Install what reads such URLs: pip install 'teachonce[s3]'\n")
