"""A compiled teacher: other roundings, other units, the same recipe; one shape for batches of any size."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from teachonce.cache import cache_command, cache_config, run_units, unit_lookup, unit_plan
from teachonce.teacher import predictor, teacher_network
from teachonce.views import view_policy

CPU = torch.device("cpu")
VIEWS = 5
compiles = [
    pytest.mark.slow,
    pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler"),
    # torch 2.11 warns of what it imports itself.
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),
]


def marked(test):
    for mark in compiles:
        test = mark(test)
    return test


def views(count: int) -> np.ndarray:
    bits = np.random.Philox(key=count).random_raw(count * 3 * 32 * 32 // 8)
    return bits.view(np.uint8).reshape(count, 3, 32, 32)


@pytest.fixture(scope="module")
def compiled_of(teacher):
    """Teachers by precision, as they are and compiled."""

    def pair(precision: str) -> tuple[predictor.Predictor, predictor.Predictor]:
        identity = teacher_network.read_identity(teacher).model_copy(update={"precision": precision})
        networks = teacher_network.load(teacher, CPU), teacher_network.load(teacher, CPU)
        return (
            predictor.Predictor(networks[0], identity, CPU),
            predictor.Predictor(networks[1], identity, CPU, compiled_for=VIEWS),
        )

    return pair


@marked
@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-5), ("bfloat16", 0.05)])
@pytest.mark.nightly
def test_answers_are_within_rounding_and_one_shape_serves_all(compiled_of, precision, rounding):
    eager, compiled = compiled_of(precision)
    assert (eager.compiled, compiled.compiled) == (False, True)
    assert compiled.label == f"{eager.label}, compiled"
    whole = views(2 * VIEWS + 1)
    first = compiled.logits(whole[:VIEWS])
    with torch.compiler.set_stance("fail_on_recompile"):
        for count in (1, VIEWS - 1, VIEWS, VIEWS + 1, 2 * VIEWS, 2 * VIEWS + 1):
            answers, expected = compiled.logits(whole[:count]), eager.logits(whole[:count])
            assert answers.shape == expected.shape
            assert np.abs(answers - expected).max() < rounding * np.abs(expected).max()
    assert np.array_equal(compiled.logits(whole[:VIEWS]), first)
    # What fills a batch up changes no row.
    assert np.array_equal(compiled.logits(whole[: VIEWS - 1]), first[:-1])


@marked
@pytest.mark.nightly
def test_the_stage_compiles_where_the_teachers_configuration_says_so(bench, whole, monkeypatch):
    compiled = bench.but(compiled=True)
    # In this process, whose filter of warnings it needs.
    cache_command.main(compiled.command()[4:])
    assert not {path.name for path in compiled.units()} & {path.name for path in whole.units()}
    store, reference = compiled.open(), whole.open()
    assert store.recipe == reference.recipe
    assert {record.device for record in store.units()} == {"cpu, 1 threads, compiled"}
    assert {record.device for record in reference.units()} == {"cpu, 1 threads"}
    for tar in range(3):
        answers, expected = store.block(tar, 3).logits_BC, reference.block(tar, 3).logits_BC
        assert np.abs(answers - expected).max() < 1e-5 * np.abs(expected).max()
    # Either setting finds its own units again.
    assert compiled.make(compiled=True)["train"]["units_reused"] == 6
    assert bench.make()["train"]["units_computed"] == 6
    assert bench.digests() == whole.digests()


def test_a_unit_is_named_by_whether_the_network_is_compiled(shards, teacher, tmp_path):
    job = run_units.create_job(
        shards,
        "train",
        teacher_network.read_identity(teacher),
        view_policy.Policy(),
        aug_seeds=2,
        scratch=tmp_path,
        settings=cache_config.CacheConfig(k="all", seeds_per_unit=2),
        batch_size=6,
        device="cpu",
    )
    item = unit_plan.enumerate_units(3, 2, 2)[0]
    assert not job.compiled
    assert unit_lookup.finished_folder(replace(job, compiled=True), item) != unit_lookup.finished_folder(job, item)
