"""A folder to read from: on this machine, or behind a URL that fsspec knows, for instance s3://bucket/folder.

Readers know files only. A file behind a URL is copied whole, once, and read from its copy, which gets its name when it
has the sha256 it should have: what came over the wire is untrusted. Files without a recorded sha256 (a few of JSON) are
copied anew for each reader. Copies may be deleted at any time.

fsspec moves the bytes and repeats what a connection lost, and `fetch` gives that an end. Its own caches of whole files
do not serve: they give a second process what the first one has half written.
"""

import contextlib
import copy
import errno
import functools
import os
import re
import threading
import urllib.parse
from pathlib import Path

import fsspec

from teachonce.core import disk_errors, errors, files, hashing, locks, remote_files

COPIES = "TEACHONCE_COPIES"
"""Environment variable: the folder on this machine where copies of remote files lie."""
_COPIES = ".teachonce/copies"
MAX_COPY_BYTES = 1 << 33
"""Most bytes of a file behind a URL whose reader states no bound: twice the largest object of a store."""
_SCHEME = re.compile("[a-z][a-z0-9]*")
_FILE_URL = re.compile("(file|local):", re.IGNORECASE)
_UPLOAD = "Upload it again, as its maker has it"
_FETCHING = threading.Lock()
"""Held while a process fetches: the kernel's lock of a turn belongs to the process, and would keep no thread out."""


class Folder:
    """A folder on this machine; `RemoteFolder` has the same methods."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        """The folder's path, as messages show it."""
        return str(self.path)

    def file(self, name: str, sha256: str | None = None, most_bytes: int = MAX_COPY_BYTES) -> Path:  # noqa: ARG002 - readers verify what is here already
        """Where to read a file of the folder; nothing is fetched or compared.

        Args:
            name: of the file, relative to the folder.
            sha256: not compared here.
            most_bytes: not compared here.
        """
        return self.path / name

    def ahead(self, name: str, sha256: str, most_bytes: int = MAX_COPY_BYTES) -> None:
        """Do nothing: a file of this machine needs no fetching.

        Args:
            name: of the file.
            sha256: of its bytes.
            most_bytes: how many there may be.
        """

    def holds(self, name: str) -> bool:
        """Whether the file is there."""
        return (self.path / name).is_file()

    def sizes(self) -> dict[str, int]:
        """Bytes of every file by its name, relative to the folder."""
        files_below = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in files_below}

    def entries(self) -> set[str]:
        """Names of the files and folders that lie directly in it."""
        return {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()

    def resolved(self) -> "Folder":
        """The same folder by its absolute path, for a process that works in another one."""
        twin = copy.copy(self)
        twin.path = self.path.resolve()
        return twin


class RemoteFolder(Folder):
    """A folder behind a URL; `path` is where its copies lie."""

    def __init__(self, url: str, error: type[errors.TeachonceError]) -> None:
        scheme, parts = _split_url(url)
        copies = parse_location(os.environ.get(COPIES) or str(scratch_folder(_COPIES)))
        if isinstance(copies, str):
            raise errors.ConfigError.for_value(COPIES, "it", "a folder on this machine", copies, "Name a path")
        super().__init__(copies / Path(scheme, *parts))
        self._turns = copies / "turns.lock"
        self._url = f"{scheme}://{'/'.join(parts)}"
        self._error = error
        self._sound: set[str] = set()

    def __str__(self) -> str:
        """The folder's URL, as messages show it."""
        return self._url

    def file(self, name: str, sha256: str | None = None, most_bytes: int = MAX_COPY_BYTES) -> Path:
        """Where to read a file's copy, fetched unless a right one is there.

        Args:
            name: of the file, relative to the folder.
            sha256: that it should have.
            most_bytes: how many bytes it may have.

        Raises:
            TeachonceError: of the type given: there is no such file, it has another sha256, or more bytes.
            StorageError: the place cannot be reached, or refuses.
            DiskError: there is no room for a copy, or something else stands in its way.
        """
        path = self.path / name
        if not self._is_sound(name, sha256):
            with disk_errors.explain_write_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with _FETCHING, locks.hold_name(self._turns, str(path)):
                    # Once more: whoever had its turn before may have fetched this very file.
                    if not self._is_sound(name, sha256):
                        self._fetch(name, path, sha256, most_bytes)
        return path

    def ahead(self, name: str, sha256: str, most_bytes: int = MAX_COPY_BYTES) -> None:
        """Begin to fetch a file that will be asked for; what goes wrong is told when it is.

        Args:
            name: of the file, relative to the folder.
            sha256: that it should have.
            most_bytes: how many bytes it may have.
        """
        if not (self.path / name).is_file():
            # A daemon: a run that ends does not wait for a file that it no longer needs.
            threading.Thread(
                target=self._fetch_quietly, args=(name, sha256, most_bytes), name="ahead", daemon=True
            ).start()

    def holds(self, name: str) -> bool:
        """Whether the file is there, by one listing of the whole folder."""
        return name in self._sizes

    def sizes(self) -> dict[str, int]:
        """Bytes of every file by its name, relative to the folder."""
        return self._sizes

    def entries(self) -> set[str]:
        """Names of the files and folders that lie directly in it."""
        return {name.partition("/")[0] for name in self._sizes}

    def _fetch_quietly(self, name: str, sha256: str, most_bytes: int) -> None:
        with contextlib.suppress(Exception):
            self.file(name, sha256, most_bytes)

    def _is_sound(self, name: str, sha256: str | None) -> bool:
        """Whether a copy is there and, looked at once in a process, right."""
        path = self.path / name
        # Without a digest nothing tells an old copy from a right one: such files, a few of JSON, are fetched anew.
        if sha256 is None or not path.is_file():
            return False
        # Once in a process: a copy is as trustworthy as its disk, and readers compare what they decode with its digest.
        if name not in self._sound and hashing.sha256_file(path) == sha256:
            self._sound.add(name)
        return name in self._sound

    def _fetch(self, name: str, path: Path, sha256: str | None, most_bytes: int) -> None:
        url, draft = f"{self._url}/{name}", files.partial_path(path)
        # A pipe would be waited for, a link written through.
        files.remove(draft)
        try:
            # Copied whole, not read by ranges: what is decoded must have been hashed from its first byte to its last.
            system, root = self._system
            remote_files.download(system, f"{root}/{name}", draft, most_bytes)
        except remote_files.TooLongError as error:
            draft.unlink(missing_ok=True)
            raise self._error.for_value(url, "bytes", f"at most {most_bytes:,}", "more", _UPLOAD) from error
        except Exception as error:  # each of fsspec's filesystems has errors of its own
            # Also from under what may still write to it.
            draft.unlink(missing_ok=True)
            raise self._error_for(url, error) from error
        if sha256 is not None and (digest := hashing.sha256_file(draft)) != sha256:
            draft.unlink()
            raise self._error.for_value(url, "sha256", f"as recorded, {sha256}", digest, _UPLOAD)
        if path.is_dir():
            # No file is renamed onto a folder.
            files.remove(path)
        # The name comes last: a copy that has it is whole and right, whichever process meets it.
        draft.replace(path)
        if sha256 is not None:
            self._sound.add(name)

    @functools.cached_property
    def _sizes(self) -> dict[str, int]:
        try:
            # One listing answers for all files: a request for each of a store's thousands of objects would take
            # minutes.
            return remote_files.list_sizes(*self._system)
        except Exception as error:  # as above
            raise self._error_for(self._url, error) from error

    @functools.cached_property
    def _system(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Kept here: fsspec itself would make one a thread, each with connections of its own.
        return remote_files.open_filesystem(self._url)

    def _error_for(self, url: str, error: Exception) -> errors.TeachonceError:
        reason = errors.single_line(error)
        if isinstance(error, FileNotFoundError):
            return self._error(url, f"is missing ({reason})", "Check the URL, or upload it again")
        return errors.StorageError(url, f"cannot be read ({reason})", self._cure(error, reason))

    def _cure(self, error: Exception, reason: str) -> str:
        if isinstance(error, ImportError):
            return "Install what reads such URLs: pip install 'teachonce[s3]'"
        if isinstance(error, PermissionError) or "credentials" in reason:
            return "Check the credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            return f"Make room below {self._turns.parent}, or set {COPIES} to a folder elsewhere"
        return "Check URL, network and endpoint (AWS_ENDPOINT_URL), then run the same command again"


def scratch_folder(text: str) -> Path:
    """A folder of what outlasts a run; the type of an argument.

    DVC runs the stages of its queue in a copy of the repository that it removes afterwards, and sets DVC_ROOT to the
    repository itself, where a relative path then leads.
    """
    return Path(os.environ.get("DVC_ROOT", ""), text)


def parse_location(text: str) -> str | Path:
    """A path, also where it is written as file:///…, or the URL that it would not survive as one; an argument's type.

    Raises:
        ConfigError: a file's URL that names no absolute path on this machine.
    """
    if _FILE_URL.match(text):
        return _file_url_path(text)
    return text if "://" in text else Path(text)


def _file_url_path(url: str) -> Path:
    """The path of a file's URL (RFC 8089)."""
    _, _, rest = url.partition(":")
    host, slash, path = rest[2:].partition("/") if rest.startswith("//") else ("", rest[:1], rest[1:])
    decoded = os.fsdecode(urllib.parse.unquote_to_bytes(path))
    # What stands behind ? or # would be no part of the path, and is surely meant to be.
    if host not in {"", "localhost"} or slash != "/" or set("?#") & set(path) or "\0" in decoded:
        cure = "Write the path itself"
        raise errors.ConfigError.for_value("URL", "it", "file:///absolute/path", _without_secrets(url), cure)
    return Path("/", decoded)


def _split_url(url: str) -> tuple[str, list[str]]:
    """Scheme and path of a URL, below whose like its copies lie."""
    scheme, _, rest = url.partition("://")
    parts = [part for part in rest.split("/") if part]
    shown = _without_secrets(url)
    # Copies lie below a folder of the same name, and must not leave it.
    if not _SCHEME.fullmatch(scheme) or not parts or {".", ".."} & set(parts) or not rest.isprintable():
        raise errors.ConfigError.for_value("URL", "it", "scheme://folder, without . and ..", shown, "Correct it")
    if shown != url:
        cure = "Give what proves who you are by the environment, or by fsspec's own configuration"
        raise errors.ConfigError.for_value("URL", "it", "without password, key or query", shown, cure)
    return scheme, parts


def _without_secrets(url: str) -> str:
    """A URL as it may be shown: no password before the host, nothing behind a question mark."""
    shown = re.sub(r"(?<=://)[^/@]*:[^/]*@", "…@", url)
    return re.sub(r"[?].+", "?…", shown)


def subfolder(where: str | Path, name: str) -> str | Path:
    """A folder within the folder at a path or URL."""
    return where / name if isinstance(where, Path) else f"{where.rstrip('/')}/{name}"


def open_folder(place: str | Path, error: type[errors.TeachonceError]) -> Folder:
    """The folder at a path or URL.

    Args:
        place: a path, or scheme://….
        error: the class raised where a file behind a URL is missing or is not the one recorded.
    """
    location = parse_location(place) if isinstance(place, str) else place
    return RemoteFolder(location, error) if isinstance(location, str) else Folder(location)
