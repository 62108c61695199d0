"""What `dvc push` uploads after one tar was added to shards and cache, against pushing all of it.

    python tests/bench/bench_push.py

Target: the new tar, its objects of the cache, and JSON; no other tar's data.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import bench_step
import photos

TARS, ROWS = 9, 100


@dataclass(frozen=True)
class Pushed:
    """Files that a push added to the remote, in bytes, by what they are."""

    data: dict[str, int]
    """Tars and objects, by path."""
    text: dict[str, int]
    """JSON: metadata of the stores, DVC's listings of folders."""

    @property
    def bytes(self) -> int:
        return sum(self.data.values()) + sum(self.text.values())


def make(folder: Path, tars: int, rows: int) -> None:
    """Shards and a cache of k = 10, two aug seeds; those of fewer tars are a part of those of more."""
    for name in ("shards", "cache"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shards = photos.shards(folder / "shards", tars * rows, rows)
    with tempfile.TemporaryDirectory() as scratch:
        store = bench_step.store(Path(scratch), shards, rows, k=10, seeds=2)
        shutil.copytree(store, folder / "cache")


def push(folder: Path) -> Pushed:
    """Add both folders to DVC and push them."""
    before = contents(folder / "remote")
    for command in (["add", "-q", "shards", "cache"], ["push", "-q"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True)
    md5s = {
        hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(): path.relative_to(folder).as_posix()
        for path in [*(folder / "shards").rglob("*"), *(folder / "cache").rglob("*")]
        if path.is_file()
    }
    added = {name: size for name, size in contents(folder / "remote").items() if name not in before}
    named = {md5s.get(name.replace("/", ""), name): size for name, size in added.items()}
    data = {name: size for name, size in named.items() if not name.endswith((".json", ".dir"))}
    return Pushed(data, {name: size for name, size in named.items() if name not in data})


def contents(remote: Path) -> dict[str, int]:
    root = remote / "files" / "md5"
    return {p.relative_to(root).as_posix(): p.stat().st_size for p in root.rglob("*") if p.is_file()}


def start(folder: Path) -> None:
    """A project of DVC alone, with a remote beside it."""
    for command in (["init", "-q", "--no-scm"], ["remote", "add", "-q", "-d", "local", str(folder / "remote")]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, check=True)


def measure(folder: Path, tars: int, rows: int) -> tuple[Pushed, Pushed]:
    """The push of all tars but one, and that of the last one."""
    start(folder)
    make(folder, tars - 1, rows)
    first = push(folder)
    make(folder, tars, rows)
    return first, push(folder)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = measure(Path(folder), TARS, ROWS)
    print(f"first push, {TARS - 1} tars: {first.bytes:,} bytes in {len(first.data) + len(first.text)} files")
    for name, size in second.data.items():
        print(f"  then: {size:>10,}  {name}")
    print(f"  then: {sum(second.text.values()):>10,}  JSON, {len(second.text)} files")
    new, whole = sum(second.data.values()), first.bytes + second.bytes
    print(f"uploaded / data of the new tar = {second.bytes / new:.4f}; / pushing all = {second.bytes / whole:.4f}")
    print(json.dumps({"uploaded": second.bytes, "new_data": new, "all": whole}))


if __name__ == "__main__":
    main()
