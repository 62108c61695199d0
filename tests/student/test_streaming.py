"""`stages.train` from s3://, as a process, through a proxy that counts: the same student, nothing fetched twice."""

import hashlib
import os
import subprocess
from collections import Counter
from pathlib import Path

import endpoint
import pytest
import stage_processes

from teachonce.core import errors, hashing
from teachonce.student import train_command

ROOT = Path(__file__).parents[2]
SHORT = {"epochs": 2, "warmup_epochs": 0}
TARS = 3


@pytest.fixture(scope="module")
def stored(world, s3):
    """The bucket that holds the world's shards and a cache of it."""
    s3.client().create_bucket(Bucket="streamed")
    s3.upload(world.shards, "streamed", "shards")
    s3.upload(world.cache("top3"), "streamed", "cache/train.zarr")
    return s3


@pytest.fixture
def through(stored):
    with endpoint.proxy(stored) as (way, seen):
        yield way, seen


@pytest.fixture
def damaged(s3, world, tmp_path, monkeypatch):
    """A bucket of one's own, to be damaged, and a client of it; this process reads from there."""
    name = f"damaged-{hashing.json_digest(str(tmp_path))[:12]}"
    s3.client().create_bucket(Bucket=name)
    s3.upload(world.shards, name, "shards")
    s3.upload(world.cache("top3"), name, "cache/train.zarr")
    for key, value in {**s3.environment, "TEACHONCE_COPIES": str(tmp_path / "copies")}.items():
        monkeypatch.setenv(key, value)
    return name, s3.client()


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return stage_processes.run(
        ["-W", "error::ResourceWarning", "-m", "stages.train", *arguments],
        cwd=ROOT,
        environment={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
    )


def remote(arguments: list[str], bucket: str = "streamed") -> list[str]:
    """The same command with URLs in the place of paths."""
    at = dict(zip(arguments[::2], arguments[1::2], strict=True))
    at |= {"--shards": f"s3://{bucket}/shards", "--cache": f"s3://{bucket}/cache/train.zarr"}
    return [part for pair in at.items() for part in pair]


def digests(folder: Path) -> dict[str, str]:
    paths = [*(folder / "model").rglob("*"), *(folder / "curves").rglob("*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()
    }


def is_data(path: str) -> bool:
    """A tar or an object; the few JSON files are read anew by each process."""
    return path.endswith(".tar") or "/c/" in path


@pytest.fixture
def here(monkeypatch, tmp_path):
    """The same stage in this process."""

    def run_here(arguments: list[str], out: str) -> dict[str, str]:
        train_command.main(arguments)
        return digests(tmp_path / out)

    return run_here


@pytest.mark.slow
def test_a_streamed_student_is_the_local_one_and_nothing_is_fetched_twice(world, command, through, here, tmp_path):
    way, seen = through
    local = here(command(world, cache="top3", settings=SHORT, out="local"), "local")
    assert "model/model.safetensors" in local
    # Connections drop on the way, and two loader processes ask beside the main one.
    seen.drops.update({"train-000001.tar": 2, "logp/c/0": 1, "units.json": 1})
    arguments = remote(command(world, settings={**SHORT, "workers": 2}, out="streamed"))
    environment = {**way.environment, "TEACHONCE_COPIES": str(tmp_path / "copies")}
    done = run(arguments, **environment)
    assert done.returncode == 0, done.stderr
    # The record tells the number of workers.
    assert digests(tmp_path / "streamed") | {"model/record.json": ""} == local | {"model/record.json": ""}
    assert seen.cut == 4
    fetched = Counter(path for path in seen.gets() if is_data(path))
    assert sum(path.endswith(".tar") for path in fetched) == TARS
    assert sum(fetched.values()) == len(fetched) + 3, "nothing but what was dropped is asked for again"
    assert seen.listings() == 3, "one for each process, whatever the number of objects"
    assert not any(method == "HEAD" for method, _ in seen.requests)
    seen.requests.clear()
    done = run(remote(command(world, settings=SHORT, out="again")), **environment)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "again") == local
    assert seen.requests
    assert not [path for path in seen.gets() if is_data(path)]


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a run that is refused."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    (line,) = [line for line in done.stderr.strip().splitlines() if "step/s" not in line and "steps/s" not in line]
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def _cut(data: bytes) -> bytes:
    return data[:-512]


def _change(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


DAMAGE = {
    "missing_tar": ("shards/train-000002.tar", None, "is missing (The specified key does not exist.). Check the URL"),
    "cut_tar": ("shards/train-000002.tar", _cut, "sha256 must be as recorded"),
    "missing_object": ("cache/train.zarr/logp/c/1/0/0/0", None, "is missing. Fetch it again"),
    "changed_object": ("cache/train.zarr/logp/c/1/0/0/0", _change, "sha256 must be as recorded"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_behind_the_url_is_refused_by_its_url(world, command, damaged, monkeypatch, case):
    (bucket, client), (key, damage, message) = damaged, DAMAGE[case]
    data = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    client.delete_object(Bucket=bucket, Key=key)
    if damage:
        client.put_object(Bucket=bucket, Key=key, Body=damage(data))
    with pytest.raises(errors.TeachonceError) as caught:
        train_command.main(remote(command(world, settings=SHORT), bucket))
    assert str(caught.value).startswith(f"s3://{bucket}/{key}: {message}")


@pytest.mark.slow
def test_an_endpoint_that_is_down_is_one_line(world, command, tmp_path):
    gone = endpoint.Endpoint(f"http://127.0.0.1:{endpoint.free_port()}")
    environment = {**gone.environment, "AWS_MAX_ATTEMPTS": "1", "TEACHONCE_COPIES": str(tmp_path / "copies")}
    line = refused(run(remote(command(world, settings=SHORT)), **environment))
    assert line.startswith("s3://streamed/shards/index.json: cannot be read (Could not connect to the endpoint URL")
    assert line.endswith("Check URL, network and endpoint (AWS_ENDPOINT_URL), then run the same command again")


def test_tars_that_moved_are_found_by_the_environment(broken, command, damaged, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    for number in range(TARS):
        broken.tar(number).rename(tmp_path / "elsewhere" / broken.tar(number).name)

    def train_at(out: str) -> dict[str, str]:
        train_command.main(command(broken, cache="top3", settings=SHORT, out=out))
        return digests(tmp_path / out)

    with pytest.raises(errors.DataError) as caught:
        train_at("out")
    assert str(caught.value).startswith(f"{broken.tar(0)}: cannot be read (No such file or directory)")
    assert str(caught.value).endswith("where the tars lie elsewhere, set TEACHONCE_SHARDS_BASE to their folder")
    monkeypatch.setenv("TEACHONCE_SHARDS_BASE", str(tmp_path / "elsewhere"))
    first = train_at("moved")
    monkeypatch.setenv("TEACHONCE_SHARDS_BASE", f"s3://{damaged[0]}/shards")
    assert train_at("behind") == first
    assert (tmp_path / "copies/s3" / damaged[0] / "shards/train-000000.tar").is_file()
