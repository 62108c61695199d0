"""What is told of a cache is what lies there, and telling it needs no teacher."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import fsspec
import pytest

from teachonce.core import errors, files
from teachonce.format import row_frontier
from teachonce.tools.inspect import describe, inspect_table

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests/golden"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-W", "error", "-m", "teachonce", "inspect", *map(str, arguments)]
    return subprocess.run(words, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)


@pytest.fixture
def folder(tmp_path):
    """Two stores and a measurement of other forms."""
    shutil.copytree(GOLDEN / "cache_v2", tmp_path / "cache/train.zarr")
    shutil.copytree(GOLDEN / "cache_v1", tmp_path / "cache/val.zarr")
    form = row_frontier.RowFormat(k=3, rank=2, step=0.5)
    points = (row_frontier.Point(form=form, bytes_a_view=12.5, tv=(0.125,)),)
    frontier = row_frontier.Frontier(taus=(1,), views_fitted=30, views_measured=10, chosen=form, points=points)
    files.write_json(tmp_path / "cache" / row_frontier.NAME, frontier.model_dump(mode="json"))
    return tmp_path / "cache"


def test_sizes_are_those_on_disk(folder):
    store = describe.summarise_cache(folder, 0.1).stores["train.zarr"]
    paths = [path for path in (folder / "train.zarr").rglob("*") if path.is_file()]
    assert (store.files, store.bytes) == (len(paths), sum(path.stat().st_size for path in paths))
    assert sum(part.objects for part in store.parts.values()) == store.files
    assert sum(part.bytes for part in store.parts.values()) == store.bytes
    tail = [path for path in (folder / "train.zarr/tail/c").rglob("*") if path.is_file()]
    assert store.parts["tail"].objects == len(tail) == 4
    assert store.parts["tail"].bytes == sum(path.stat().st_size for path in tail)
    assert store.views == (3 + 2) * 4
    assert store.parts["tail"].bytes_a_view == store.parts["tail"].bytes / 20
    assert store.missing == 0


def test_identity_fidelity_and_reach(folder):
    coded, flat = describe.summarise_cache(folder, 0.1).stores.values()
    assert (coded.format, flat.format) == (2, 1)
    assert coded.recipe.tail.rank == 2
    assert flat.recipe.tail == "flat"
    assert coded.fidelity["k=3,tau=2"]["tv_mean"] == pytest.approx(0.0592, abs=1e-4)
    assert coded.carries == {"3": (1, 2, 3, 5, 10), "1": ()}
    assert describe.summarise_cache(folder, 0.059).stores["train.zarr"].carries == {"3": (1, 10), "1": ()}
    assert [(maker.units, maker.device, maker.versions) for maker in flat.made_by] == [
        (4, "cpu, 1 threads", {"python": "3.11"})
    ]
    assert flat.teacher_top1 == 4 / 20


def test_the_table_has_it_all(folder):
    text = inspect_table.format_description(describe.summarise_cache(folder, 0.1))
    for words in (
        "train.zarr",
        "val.zarr",
        "golden, depth 2",
        "k 3, transform tail: rank 2, step 0.5, basis",
        "k 3, flat tail",
        "5 images in 2 tars × 4 aug seeds = 20 views",
        "cpu, 1 threads; python 3.11 (4 of 4 units)",
        "20.00 % of the",
        "within a mean TV of 0.1: k 3: tau 1, 2, 3, 5, 10; k 1: none.",
        "<- configured",
    ):
        assert words in text
    (line,) = (line for line in text.splitlines() if "k 3, TV mean" in line and "0.0125" in line)
    assert line.split()[4:] == ["0.0125", "0.0592", "0.0817", "0.0842", "0.0589"]


def test_several_makers_are_told_apart(folder):
    units = json.loads((folder / "val.zarr/units.json").read_text())
    units[3]["device"] = "cuda"
    files.write_json(folder / "val.zarr/units.json", units)
    text = inspect_table.format_description(describe.summarise_cache(folder / "val.zarr", 0.1))
    assert "cpu, 1 threads; python 3.11 (3 of 4 units)" in text
    assert "cuda; python 3.11 (1 of 4 units)" in text


def test_what_is_missing_is_told(folder):
    (folder / "train.zarr/logp/c/1/0/0/0").unlink()
    description = describe.summarise_cache(folder, 0.1)
    assert description.stores["train.zarr"].missing == 1
    assert "missing     1 objects" in inspect_table.format_description(description)


def test_whole_rows_carry_every_tau(folder):
    description = describe.summarise_cache(folder / "val.zarr", 0.1)
    store = description.stores["val.zarr"]
    whole = store.recipe.model_copy(update={"k": "all", "tail": "none"})
    text = inspect_table.format_description(
        description.model_copy(update={"stores": {"x": store.model_copy(update={"recipe": whole, "fidelity": {}})}})
    )
    assert "k all: raw float32 logits" in text
    assert "Carries every tau exactly" in text
    assert "TV" not in text


def test_a_foreign_text_cannot_command_the_terminal(folder):
    units = json.loads((folder / "val.zarr/units.json").read_text())
    units[0]["device"] = "cpu\x1b[2J\r"
    files.write_json(folder / "val.zarr/units.json", units)
    text = inspect_table.format_description(describe.summarise_cache(folder / "val.zarr", 0.1))
    assert "cpu�[2J�; python" in text


def test_a_foreign_text_leaves_as_text_alone_and_whole_as_json(folder):
    units = json.loads((folder / "val.zarr/units.json").read_text())
    units[0]["versions"] = {"py\x1b[2J": "3\u202e\n  top-1       100.00 %"}
    files.write_json(folder / "val.zarr/units.json", units)
    done = command(folder)
    assert done.returncode == 0
    assert {letter for letter in done.stdout if not letter.isprintable()} == {"\n"}
    assert "\n  top-1       100.00 %" not in done.stdout
    done = command(folder, "--json")
    assert done.stdout.isascii()
    assert describe.CacheDescription.model_validate_json(done.stdout) == describe.summarise_cache(folder, 0.1)


def test_the_command_prints_a_table_or_json(folder):
    done = command(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == inspect_table.format_description(describe.summarise_cache(folder, 0.1))
    done = command(folder, "--json", "--max-tv", 0.059)
    assert describe.CacheDescription.model_validate_json(done.stdout) == describe.summarise_cache(folder, 0.059)


def test_a_cache_behind_a_url_is_told_without_its_objects(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHONCE_COPIES", str(tmp_path / "copies"))
    fsspec.filesystem("memory").put(str(folder), "/told/cache", recursive=True)
    local, remote = describe.summarise_cache(folder, 0.1), describe.summarise_cache("memory://told/cache", 0.1)
    assert remote.frontier == local.frontier
    for name, store in local.stores.items():
        assert remote.stores[name] == store.model_copy(update={"path": f"memory://told/cache/{name}"})
    assert describe.summarise_cache("memory://told/cache/val.zarr", 0.1).stores == {
        "val.zarr": remote.stores["val.zarr"]
    }
    assert (tmp_path / "copies/memory/told/cache/train.zarr/logp/zarr.json").is_file()
    assert not list((tmp_path / "copies").glob("**/logp/c")), "no row was asked for"
    with pytest.raises(errors.CacheError, match="memory://told/none: holds no cache"):
        describe.summarise_cache("memory://told/none", 0.1)


def test_no_cache_is_refused_in_one_line(tmp_path):
    done = command(tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: {tmp_path}/none: holds no cache, no folder with a zarr.json. Fetch it")
    (tmp_path / "zarr.json").write_text("{}")
    with pytest.raises(errors.CacheError, match="is not a whole cache"):
        describe.summarise_cache(tmp_path, 0.1)


def test_neither_teacher_nor_torch_is_imported():
    listed = "[name for name in sys.modules if name.startswith(('teachonce.teacher', 'torch'))]"
    code = f"import sys, teachonce.tools.inspect.inspect_command\nprint({listed})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
