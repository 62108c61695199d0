"""No step on bytes that nobody proved, and no student of one cache handed out for another."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import zarr
from runs import digests, in_process, saved_steps

from teachonce.core import errors, files, hashing
from teachonce.shards import index, sample_reader
from teachonce.store import store_reader
from teachonce.student import loader, process_group

SHORT = {"epochs": 2, "warmup_epochs": 0}


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """Weights and record of a run that nothing disturbed, by the changes to its configuration."""
    made: dict[str, dict[str, str]] = {}

    def run(command, tmp_path: Path, **settings: object) -> dict[str, str]:
        name = json.dumps(settings)
        if name not in made:
            in_process(command(world, out="straight", settings={**SHORT, **settings}))
            made[name] = digests(tmp_path / "straight")
        return made[name]

    return run


def alter_rows(store: Path) -> None:
    """Other answers to one tar, with a record that agrees with them."""
    array = zarr.open_array(str(store / "logits"), mode="r+")
    array[1] = -array[1]
    units = json.loads((store / "units.json").read_text())
    for unit in units:
        if unit["tar"] == 1:
            unit["objects"]["logits"] = hashing.sha256_file(store / f"logits/c/1/{unit['group']}/0/0")
    files.write_json(store / "units.json", units)


def test_a_student_of_a_bad_cache_is_not_handed_out_again(broken, world, command, straight, tmp_path):
    alter_rows(broken.cache())
    arguments = command(broken, settings=SHORT)
    in_process(arguments)
    bad = json.loads((tmp_path / "out/model/record.json").read_text())
    shutil.rmtree(broken.cache())
    shutil.copytree(world.cache(), broken.cache())
    assert in_process(arguments)["resumed_at_step"] == 0
    assert digests(tmp_path / "out") == straight(command, tmp_path)
    good = json.loads((tmp_path / "out/model/record.json").read_text())
    assert bad["cache_fingerprint"] != good["cache_fingerprint"]


def test_growth_retrains_nothing(broken, command, tmp_path, views):
    fewer = {**json.loads(views().model_dump_json(exclude_defaults=True)), "aug_seeds": 2}
    arguments = command(broken, views=fewer, settings=SHORT)
    shutil.copytree(broken.cache(), tmp_path / "grown")
    shrink(broken.cache())
    in_process(arguments)
    first = (tmp_path / "out/model/model.safetensors").read_bytes()
    shutil.rmtree(broken.cache())
    shutil.copytree(tmp_path / "grown", broken.cache())
    done = in_process(arguments)
    assert done["resumed_at_step"] == done["steps"]
    assert (tmp_path / "out/model/model.safetensors").read_bytes() == first


def shrink(store: Path) -> None:
    """Half of the aug seeds: one group of two."""
    data = json.loads((store / "zarr.json").read_text())
    data["attributes"]["teachonce"]["extent"]["aug_seeds"] = 2
    files.write_json(store / "zarr.json", data)
    units = json.loads((store / "units.json").read_text())
    files.write_json(store / "units.json", [unit for unit in units if unit["group"] == 0])
    path = store / "logits/zarr.json"
    array = json.loads(path.read_text())
    array["shape"][1] = 2
    files.write_json(path, array)


def swap_images(path: Path, shard: index.Shard, canaries: set[int]) -> None:
    """Exchange the first two images of one length that no canary shows."""
    # By another path: this process would remember the tar.
    copy = shutil.copy(path, path.with_name("copy.tar"))
    samples = [sample for sample in sample_reader.verified_samples(shard, copy) if sample.row not in canaries]
    one, two = next(
        (one.image, two.image)
        for place, one in enumerate(samples)
        for two in samples[:place]
        if len(one.image) == len(two.image) and one.image != two.image
    )
    data = path.read_bytes()
    parts = (data.index(one), data.index(two))
    changed = bytearray(data)
    changed[parts[0] : parts[0] + len(one)], changed[parts[1] : parts[1] + len(two)] = two, one
    path.write_bytes(changed)


def test_no_step_is_taken_on_images_that_are_refused(broken, command, straight, tmp_path):
    settings = {"buffer": 1, "checkpoint_every": 1, "lanes": 1}
    first = straight(command, tmp_path, **settings)
    cache = store_reader.open(broken.cache())
    shards = index.read(broken.shards)
    shard = shards.index.of_split("train")[2]  # the look before the first step does not reach it
    tar = cache.tar(shard.sha256)
    good = broken.tar(2).read_bytes()
    swap_images(broken.tar(2), shard, {cache.unit(tar, group).canary.row for group in (0, 1)})
    arguments = command(broken, settings={**SHORT, **settings})
    with pytest.raises(errors.DataError, match=r"train-000002\.tar: sha256 must be as indexed"):
        in_process(arguments)
    steps = saved_steps(tmp_path / "out")
    broken.tar(2).write_bytes(good)
    assert in_process(arguments)["resumed_at_step"] == steps
    assert digests(tmp_path / "out") == first


@pytest.mark.parametrize("what", ["cache", "shards"])
def test_what_was_replaced_before_a_process_opened_it(broken, what):
    plan = broken.plan()
    source, student = plan.source(), plan.student(workers=0)
    next(loader.iter_batches(source, student, 2, world=process_group.single_process()))
    # As a loader process gets it: nothing is open, and what the run began with is known by its digest.
    sent = copy.copy(source)
    if what == "cache":
        alter_rows(broken.cache())
    else:
        data = json.loads((broken.shards / "index.json").read_text())
        files.write_json(broken.shards / "index.json", {**data, "shardlist": data["shardlist"][:2]})
    with pytest.raises(errors.DataError, match=r"changed while the run began\. Run the same command again"):
        next(loader.iter_batches(sent, student, 2, world=process_group.single_process()))
