"""What a user has in their environment or configuration decides no byte of a store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from teachonce.core import hashing

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parents[1] / "support"
ODD = {
    "version 2 of Zarr": {"ZARR_DEFAULT_ZARR_FORMAT": "2"},
    "Zarr's settings": {
        "ZARR_ARRAY__ORDER": "F",
        "ZARR_ARRAY__WRITE_EMPTY_CHUNKS": "False",
        "ZARR_JSON_INDENT": "0",
        "ZARR_CODEC_PIPELINE__BATCH_SIZE": "3",
        "ZARR_ARRAY__TARGET_SHARD_SIZE_BYTES": "1000",
    },
    "another codec": {"ZARR_CODECS__BLOSC": "zarr.codecs.gzip.GzipCodec", "ZARR_CODECS__BYTES": "nowhere.Codec"},
    "another pipeline": {"ZARR_CODEC_PIPELINE__PATH": "nowhere.Pipeline", "ZARR_NDBUFFER": "nowhere.Buffer"},
    "Blosc's settings": {
        "BLOSC_CLEVEL": "9",
        "BLOSC_SHUFFLE": "NOSHUFFLE",
        "BLOSC_COMPRESSOR": "lz4",
        "BLOSC_TYPESIZE": "8",
        "BLOSC_BLOCKSIZE": "4096",
        "BLOSC_NTHREADS": "4",
        "BLOSC_SPLITMODE": "NEVER",
    },
    "Dask's settings": {"DASK_ARRAY__CHUNK_SIZE": "1", "DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "fork"},
    "Python's settings": {"PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"},
    "more threads": {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    "a place": {"TZ": "Asia/Kathmandu", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
PROGRAM = f"""if True:
    import sys
    from pathlib import Path
    sys.path.insert(0, {str(SUPPORT)!r})
    import hashed_stores
    import numpy as np
    from teachonce.core import command
    from teachonce.format import basis, schema

    def main():
        root = Path(sys.argv[1])
        shards = hashed_stores.write_shards(root / "shards")
        values = np.linspace(-3, 0, 12, dtype=np.float32), np.ones(12, np.float32), np.eye(4, 12, dtype=np.float32)
        tail = basis.Basis(*values)
        coded = schema.TransformTail(rank=4, step=0.5, basis_sha256=tail.sha256(0.5))
        recipes = {{
            "all": (hashed_stores.recipe_of("all"), None), "flat": (hashed_stores.recipe_of(3), None),
            "coded": (hashed_stores.recipe_of(3).model_copy(update={{"tail": coded}}), tail),
        }}
        for name, (recipe, tail) in recipes.items():
            path = root / name / "train.zarr"
            store = hashed_stores.write_store(path, shards, recipe, aug_seeds=4, seeds_per_unit=2, tail=tail)
            cache = store.open()
            for tar in range(3):
                assert len(cache.keys(tar)) == cache.extent.tars[tar].nsamples
                cache.blocks(tar, 1)

    command.run_stage(main)
"""


def stored(root: Path, environment: dict[str, str], umask: int = 0o022) -> dict[str, str]:
    """Digest of every file of shards and stores that a process of such an environment writes, and reads back."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root)],
        cwd=ROOT,
        env={**os.environ, **environment},
        umask=umask,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {
        path.relative_to(root).as_posix(): hashing.sha256_file(path)
        for folder in ("shards", "all", "flat", "coded")
        for path in (root / folder).rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, str]:
    return stored(tmp_path_factory.mktemp("plain"), {})


def odd_environments() -> list:
    """Of so many starts of Python most are left to the night."""
    often = {"Zarr's settings", "Blosc's settings", "a place"}
    return [pytest.param(name, marks=() if name in often else pytest.mark.nightly) for name in ODD]


@pytest.mark.parametrize("name", odd_environments())
def test_an_environment_decides_no_byte(plain, tmp_path, name):
    assert stored(tmp_path, ODD[name]) == plain
    assert len(plain) > 100


@pytest.mark.nightly
@pytest.mark.parametrize("how", ["home", "variable"])
def test_a_configuration_of_zarr_decides_no_byte(plain, tmp_path, how):
    folder = tmp_path / ".config/zarr"
    folder.mkdir(parents=True)
    (folder / "zarr.yaml").write_text("default_zarr_format: 2\njson_indent: 7\narray: {order: F}\n")
    environment = {"HOME": str(tmp_path)} if how == "home" else {"ZARR_CONFIG": str(folder / "zarr.yaml")}
    assert stored(tmp_path / "out", environment) == plain


def test_a_mask_decides_no_byte(plain, tmp_path):
    assert stored(tmp_path, {}, umask=0o077) == plain
