"""A real S3 endpoint on loopback, in a process of its own, and a proxy before it that counts and drops connections."""

import http.client
import os
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


@dataclass(frozen=True)
class Endpoint:
    """An S3 service that runs."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def client(self):
        known = {name.lower(): value for name, value in CREDENTIALS.items() if name != "AWS_DEFAULT_REGION"}
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **known)

    def upload(self, folder: Path, bucket: str, prefix: str) -> None:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.client().upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder).as_posix()}")

    def keys(self, bucket: str) -> dict[str, int]:
        """Bytes of every object of a bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def require_credentials(self, *, after: str = "0") -> None:
        """From now on refuse unknown keys; `after="inf"` accepts all again."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"))
        with closing(connection):
            connection.request("POST", "/moto-api/reset-auth", after, {"Content-Type": "text/plain"})
            assert connection.getresponse().status == 200


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serve() -> Iterator[Endpoint]:
    """Run moto's server until the block ends."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        env={**os.environ, **CREDENTIALS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit_s = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < limit_s
                time.sleep(0.05)
        yield Endpoint(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


@dataclass
class Proxy:
    """Passes bytes on to an endpoint; knows what was asked, and cuts answers short when told to."""

    target: tuple[str, int]
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of each, in order."""
    drops: dict[str, int] = field(default_factory=dict)
    """How many answers to come are cut, by a part of the path asked."""
    cut: int = 0
    """Answers that were cut."""

    def gets(self, part: str = "") -> list[str]:
        """Paths of GET requests of objects that contain a part; listings are no objects."""
        return [path for method, path in self.requests if method == "GET" and "list-type" not in path and part in path]

    def listings(self) -> int:
        return sum("list-type" in path for _, path in self.requests)

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            dropping = False
            while True:
                for key, _ in ready.select():
                    source = key.fileobj
                    data = source.recv(1 << 14)
                    if not data:
                        return
                    if source is client:
                        dropping = self._asked(data)
                        server.sendall(data)
                    elif dropping and not data.endswith(b"\r\n\r\n"):
                        # Something of the body, then nothing more.
                        client.sendall(data[: len(data) // 2])
                        self.cut += 1
                        return
                    else:
                        client.sendall(data)

    def _asked(self, data: bytes) -> bool:
        found = _REQUEST.match(data)
        if not found:
            return False
        path = found[2].decode()
        self.requests.append((found[1].decode(), path))
        for part, left in self.drops.items():
            if part in path and left:
                self.drops[part] = left - 1
                return True
        return False


@contextmanager
def proxy(endpoint: Endpoint) -> Iterator[tuple[Endpoint, Proxy]]:
    """The endpoint through a proxy."""
    host, _, port = endpoint.url.removeprefix("http://").partition(":")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Proxy((host, int(port)), url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=made._serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield Endpoint(made.url), made
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
