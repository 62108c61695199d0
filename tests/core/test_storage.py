"""Files behind URLs, from a real S3 endpoint through real sockets that break."""

import contextlib
import functools
import http.server
import operator
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import endpoint
import fsspec
import pytest

from teachonce.core import errors, hashing, remote_files, storage

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 1000
SHA256 = hashing.sha256(DATA)


@pytest.fixture
def bucket(s3, tmp_path, monkeypatch):
    """A bucket behind a proxy, reached from this process; copies go to tmp_path/copies."""
    name = f"bucket-{hashing.json_digest(str(tmp_path))[:12]}"
    s3.client().create_bucket(Bucket=name)
    s3.client().put_object(Bucket=name, Key="a/b/one.tar", Body=DATA)
    with endpoint.proxy(s3) as (through, seen):
        for key, value in {**through.environment, storage.COPIES: str(tmp_path / "copies")}.items():
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

    def folder(self) -> storage.Folder:
        return storage.open_folder(f"s3://{self.name}/a/b", errors.DataError)

    def put(self, data: bytes) -> None:
        self.s3.client().put_object(Bucket=self.name, Key="a/b/one.tar", Body=data)


def refusal(kind: type[errors.TeachonceError], folder: storage.Folder, name: str = "one.tar") -> str:
    with pytest.raises(kind) as caught:
        folder.file(name, SHA256)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_here_is_read_where_it_lies(tmp_path):
    folder = storage.open_folder(tmp_path, errors.DataError)
    assert folder.file("a/b", SHA256) == tmp_path / "a/b"
    assert not folder.holds("a/b")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b").write_bytes(b"123")
    assert folder.holds("a/b")
    assert folder.sizes() == {"a/b": 3}
    assert str(storage.open_folder(str(tmp_path), errors.DataError)) == str(tmp_path)


def test_an_argument_is_a_path_or_stays_a_url():
    assert storage.parse_location("artifacts/shards") == Path("artifacts/shards")
    assert storage.parse_location("s3://bucket/shards") == "s3://bucket/shards"


@pytest.mark.parametrize(
    "url", ["file:///a%20b/%C3%A9", "file://localhost/a%20b/é", "file:/a b/é", "FILE:///a b//é/", "local:///a b/é"]
)
def test_the_url_of_a_file_is_its_path(url):
    assert storage.parse_location(url) == Path("/a b/é")
    assert type(storage.open_folder(url, errors.DataError)) is storage.Folder
    assert storage.open_folder(url, errors.DataError).file("x") == Path("/a b/é/x")
    assert storage.open_folder("file:///%ff", errors.DataError).path == Path(os.fsdecode(b"/\xff"))


@pytest.mark.parametrize(
    "url",
    [
        "file://",
        "file:",
        "file:a",
        "file://a",
        "file://host/a",
        "local://a/b",
        "file:///a?b",
        "file:///a#b",
        "file:///%00",
        "file://[/a",
    ],
)
def test_the_url_of_no_file_here_is_refused(url):
    with pytest.raises(errors.ConfigError, match=r"URL: it must be file:///absolute/path\. Got (file|local):"):
        storage.parse_location(url)


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@host/a", "s3://key:hunter2@bucket/a", "https://host/a?token=hunter2", "s3://b?hunter2"]
)
def test_what_is_secret_is_refused_and_not_repeated(url):
    with pytest.raises(errors.ConfigError, match=r"URL: it must be without password, key or query\. Got") as caught:
        storage.open_folder(url, errors.DataError)
    assert "hunter2" not in str(caught.value)


def test_a_url_may_name_a_bucket_or_a_user(tmp_path, monkeypatch):
    monkeypatch.setenv(storage.COPIES, str(tmp_path))
    assert str(storage.open_folder("s3://bucket//", errors.DataError)) == "s3://bucket"
    assert str(storage.open_folder("sftp://me@host/a/", errors.DataError)) == "sftp://me@host/a"
    monkeypatch.setenv(storage.COPIES, f"file://{tmp_path}")
    assert storage.open_folder("s3://bucket", errors.DataError).path == tmp_path / "s3/bucket"
    monkeypatch.setenv(storage.COPIES, "s3://copies")
    with pytest.raises(errors.ConfigError, match="TEACHONCE_COPIES: it must be a folder on this machine"):
        storage.open_folder("s3://bucket", errors.DataError)


@pytest.mark.parametrize("url", ["s3://", "s3://bucket/../other", "../x://bucket", "s3://bucket/./a", "cached::s3://x"])
def test_a_url_cannot_lead_out_of_the_copies(url):
    with pytest.raises(errors.ConfigError, match=r"URL: it must be scheme://folder, without \. and \.\.\. Got "):
        storage.open_folder(url, errors.DataError)


def test_any_filesystem_of_fsspec_will_do(tmp_path, monkeypatch):
    monkeypatch.setenv(storage.COPIES, str(tmp_path))
    fsspec.filesystem("memory").pipe("/some/where/x/y", DATA)
    folder = storage.open_folder("memory://some/where/", errors.DataError)
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
        "from teachonce.core import errors, storage\n"
        f"folder = storage.open_folder('s3://{bucket.name}/a/b', errors.DataError)\n"
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


def full_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)


@pytest.mark.parametrize("place", ["one.tar", "one.tar.partial"])
@pytest.mark.parametrize("make", [full_folder, os.mkfifo, lambda path: path.symlink_to("elsewhere")])
@pytest.mark.parametrize("sha256", [SHA256, None], ids=["sha256", "none"])
def test_what_stands_in_place_of_a_copy_is_replaced(tmp_path, monkeypatch, place, make, sha256):
    monkeypatch.setenv(storage.COPIES, str(tmp_path / "copies"))
    fsspec.filesystem("memory").pipe("/bucket/one.tar", DATA)
    at = tmp_path / "copies/memory/bucket"
    at.mkdir(parents=True)
    (at / "elsewhere").write_text("mine")
    make(at / place)
    copy = storage.open_folder("memory://bucket", errors.DataError).file("one.tar", sha256)
    assert copy == at / "one.tar"
    assert copy.read_bytes() == DATA
    assert not copy.is_symlink()
    assert sorted(path.name for path in at.iterdir()) == ["elsewhere", "one.tar"]
    assert (at / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "make", "line"),
    [
        ("turns.lock", Path.mkdir, r"turns\.lock: it must be a regular file\. .* Remove it, and run the same command"),
        ("turns.lock", os.mkfifo, r"turns\.lock: it must be a regular file\. .* Remove it, and run the same command"),
        ("memory", Path.touch, r"memory.*: cannot be opened or written \(.*\)\. Something else stands in its place"),
    ],
)
def test_what_stands_in_the_way_of_copies_is_refused_in_a_line(tmp_path, monkeypatch, name, make, line):
    monkeypatch.setenv(storage.COPIES, str(tmp_path))
    fsspec.filesystem("memory").pipe("/bucket/one.tar", DATA)
    make(tmp_path / name)
    assert re.search(line, refusal(errors.DiskError, storage.open_folder("memory://bucket", errors.DataError)))


def test_a_copy_that_was_deleted_is_fetched_again(bucket):
    folder = bucket.folder()
    folder.file("one.tar", SHA256).unlink()
    assert folder.file("one.tar", SHA256).read_bytes() == DATA


def test_what_is_not_there_is_named(bucket):
    message = refusal(errors.DataError, bucket.folder(), "two.tar")
    assert message.startswith(f"s3://{bucket.name}/a/b/two.tar: is missing (")
    with pytest.raises(errors.CacheError, match="s3://no-such-bucket/a: is missing"):
        storage.open_folder("s3://no-such-bucket/a", errors.CacheError).holds("x")


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


def test_a_page_that_refuses_the_connection_is_not_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(storage.COPIES, str(tmp_path))
    url = f"http://127.0.0.1:{endpoint.free_port()}/cache"
    for call in (("holds", "zarr.json"), ("entries",), ("sizes",)):
        with pytest.raises(errors.StorageError, match=rf"^{url}: cannot be read \(Cannot connect to host"):
            operator.methodcaller(*call)(storage.open_folder(url, errors.CacheError))


class Pages(http.server.SimpleHTTPRequestHandler):
    """Lists a folder, but for what the test has taken away."""

    def do_GET(self):
        name = self.path.strip("/").rpartition("/")[2]
        if name in self.server.answers:
            self.send_error(self.server.answers[name])
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def served_pages(tmp_path, monkeypatch):
    """A folder of three files behind a server of pages; its answers by name of a folder."""
    for name in ("a/zarr.json", "a/deep/one", "a/deep/er/two"):
        (tmp_path / "served" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "served" / name).write_bytes(b"x")
    monkeypatch.setenv(storage.COPIES, str(tmp_path / "copies"))
    handler = functools.partial(Pages, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.answers = {}
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a", server.answers
        server.shutdown()


@pytest.mark.parametrize(("name", "code"), [("a", 500), ("a", 403), ("deep", 500), ("er", 403)])
def test_a_page_that_cannot_be_listed_is_not_an_empty_folder(served_pages, name, code):
    url, answers = served_pages
    assert set(storage.open_folder(url, errors.CacheError).sizes()) == {"zarr.json", "deep/one", "deep/er/two"}
    answers[name] = code
    with pytest.raises(errors.StorageError, match=rf"^{url}: cannot be read \({code}, "):
        storage.open_folder(url, errors.CacheError).holds("zarr.json")


def test_a_page_that_is_not_there_is_missing(served_pages):
    url, answers = served_pages
    answers["a"] = 404
    with pytest.raises(errors.CacheError, match=rf"^{url}: is missing "):
        storage.open_folder(url, errors.CacheError).holds("zarr.json")


def test_without_s3fs_the_cure_is_named(tmp_path):
    (tmp_path / "s3fs.py").write_text("raise ImportError\n")
    code = (
        "from teachonce.core import errors, storage\n"
        "try: storage.open_folder('s3://bucket/a', errors.DataError).file('x')\n"
        "except errors.StorageError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, storage.COPIES: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("s3://bucket/a/x: cannot be read (")
    assert done.stdout.endswith("Install what reads such URLs: pip install 'teachonce[s3]'\n")


class Sender(http.server.BaseHTTPRequestHandler):
    """Sends what it should not, until nobody takes it."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        kind = self.path.partition("?")[0].rpartition("/")[2]
        self.send_response(200)
        if kind == "claims":
            self.send_header("Content-Length", str(1 << 50))
        elif kind in {"ends", "slow", "drips"}:
            self.send_header("Content-Length", str(len(DATA)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with contextlib.suppress(OSError):
            getattr(self, f"send_{kind}")()

    def send_ends(self):
        self.wfile.write(DATA)

    def send_slow(self):
        for part in range(0, len(DATA), 16_000):
            time.sleep(0.5)
            self.wfile.write(DATA[part : part + 16_000])

    def send_drips(self):
        for part in range(100):
            self.wfile.write(DATA[part : part + 1])
            if self.server.released.wait(0.2):
                return

    def send_claims(self):
        self.wfile.write(DATA)
        self.server.released.wait(60)

    def send_endless(self):
        while True:
            self.server.sent += self.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")

    def send_silent(self):
        self.server.released.wait(60)

    def send_stops(self):
        self.wfile.write(b"100000\r\n" + bytes(1 << 20) + b"\r\n")
        self.server.released.wait(60)

    def log_message(self, *_):
        pass


@pytest.fixture(params=["s3", "http"])
def sender(request, tmp_path, monkeypatch):
    """A folder behind a server that sends what the name of a file tells."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Sender) as server:
        server.sent, server.released, server.daemon_threads = 0, threading.Event(), True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        environment = {**endpoint.CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{address}", storage.COPIES: str(tmp_path)}
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        forget()
        url = "s3://bucket/a" if request.param == "s3" else f"http://{address}/bucket/a"
        yield storage.open_folder(url, errors.DataError), server
        server.released.set()
        server.shutdown()
        forget()


def files_left(folder: storage.Folder) -> list[Path]:
    return [path for path in folder.path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["endless", "claims"])
@pytest.mark.parametrize("most_bytes", [1000, 5 << 20])
def test_no_more_is_fetched_than_a_file_may_have(sender, kind, most_bytes):
    folder, server = sender
    with pytest.raises(errors.DataError) as caught:
        folder.file(kind, SHA256, most_bytes)
    assert str(caught.value) == (
        f"{folder}/{kind}: bytes must be at most {most_bytes:,}. Got more. Upload it again, as its maker has it"
    )
    # What is under way in sockets comes on top.
    assert server.sent < most_bytes + (32 << 20)
    assert files_left(folder) == []


@pytest.mark.parametrize("kind", ["silent", "stops"])
def test_a_place_that_falls_silent_is_given_up(sender, kind, monkeypatch):
    folder, _ = sender
    monkeypatch.setattr(remote_files, "STALL_TIMEOUT_S", 1.5)
    with pytest.raises(errors.StorageError) as caught:
        folder.file(kind, SHA256)
    assert str(caught.value).startswith(f"{folder}/{kind}: cannot be read (nothing came for 2 s). Check URL, network")
    assert files_left(folder) == []


def test_a_folder_whose_names_do_not_come_is_given_up(sender, monkeypatch, caplog):
    folder, _ = sender
    monkeypatch.setattr(remote_files, "LISTING_TIMEOUT_S", 2.0)
    monkeypatch.setattr(remote_files, "WORD_S", 0.2)
    silent = storage.open_folder(f"{folder}/silent", errors.DataError)
    if str(folder).startswith("s3"):
        # A bucket is asked for its names at its root.
        silent = storage.open_folder("s3://silent", errors.DataError)
    with pytest.raises(errors.StorageError, match="nothing came for 2 s"):
        silent.holds("x")
    assert "nothing has come for" in caplog.text


def test_a_place_that_drips_is_given_up_and_a_word_said(sender, monkeypatch, caplog):
    """A byte every now and then, for as long as somebody waits."""
    folder, _ = sender
    monkeypatch.setattr(remote_files, "STALL_TIMEOUT_S", 3.0)
    monkeypatch.setattr(remote_files, "WORD_S", 1.0)
    with pytest.raises(errors.StorageError) as caught:
        folder.file("drips", SHA256)
    count = r"no more than \d\d? bytes"
    assert re.search(rf"drips: cannot be read \({count} came for 3 s\)\. Check URL, network", str(caught.value))
    line = caplog.messages[0]
    assert re.search(rf"drips: {count} has come for \d s; given up after 3$", line)
    assert files_left(folder) == []


class Page(http.server.BaseHTTPRequestHandler):
    """Lists, at every address, some names."""

    def do_GET(self):
        names = self.server.names(self.path)
        body = "".join(f'<a href="{name}">{name}</a>' for name in names).encode()
        self.server.requests += 1
        self.send_response(200 if names else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def pages(tmp_path, monkeypatch):
    """A folder whose names come from pages."""
    monkeypatch.setenv(storage.COPIES, str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.requests, server.daemon_threads = 0, True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield storage.open_folder(f"http://127.0.0.1:{server.server_port}/a", errors.DataError), server
        server.shutdown()
        forget()


def test_the_names_of_pages(pages):
    folder, server = pages
    tree = {"/a": ["b/", "one"], "/a/b": ["c/"], "/a/b/c": ["two"]}
    server.names = lambda path: tree.get(path.rstrip("/"), [])
    assert set(folder.sizes()) == {"one", "b/c/two"}
    assert folder.entries() == {"one", "b"}


@pytest.mark.timeout(60)
def test_a_folder_below_itself_is_no_tree_without_end(pages):
    folder, server = pages
    server.names = lambda _: ["b/"]
    with pytest.raises(errors.StorageError) as caught:
        folder.holds("x")
    assert str(caught.value).startswith(
        f"{folder}: cannot be read (it has more than 32 folders within each other). Check URL"
    )
    assert server.requests < 40


@pytest.mark.timeout(60)
def test_names_without_end_are_given_up(pages, monkeypatch):
    folder, server = pages
    monkeypatch.setattr(remote_files, "MAX_NAMES", 50)
    server.names = lambda _: [f"{name}/" for name in range(10)]
    with pytest.raises(errors.StorageError, match=r"cannot be read \(it has more than 50 names\)\. Check URL"):
        folder.holds("x")
    assert server.requests <= 6


@pytest.mark.slow
def test_a_slow_place_is_waited_for(sender, monkeypatch):
    """Longer than a silent one, as long as something comes."""
    folder, _ = sender
    monkeypatch.setattr(remote_files, "STALL_TIMEOUT_S", 6.0)
    assert folder.file("slow", SHA256, len(DATA)).read_bytes() == DATA
    assert folder.file("ends", SHA256, len(DATA)).read_bytes() == DATA
