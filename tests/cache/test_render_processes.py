"""Threads or processes: the same bytes and refusals, and nobody left behind."""

import multiprocessing
import signal
import time
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor, wait

import psutil
import pytest
import renderer_tasks

from teachonce.cache import cache_config, render_processes, rendered_batches, renderer_choice, unit_worker
from teachonce.core import errors
from teachonce.format import schema
from teachonce.shards import sample_reader
from teachonce.views import view_policy

pytestmark = [pytest.mark.slow, pytest.mark.system]
LIMIT_S = 60


@pytest.fixture(autouse=True)
def real_children(monkeypatch):
    """Processes that a stage starts are its children, by which they are found."""
    monkeypatch.setenv("TEACHONCE_TEST_REAL_CHILDREN", "1")


def wait_for(moment) -> None:
    limit = time.monotonic() + LIMIT_S
    while not moment():
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.fixture(scope="module")
def pool():
    made = renderer_choice.start_pool("processes", 2)
    yield made
    made.shutdown()


def test_the_stage_with_processes_makes_the_same_bytes_under_the_same_names(bench, whole):
    parallel = bench.but(cache=bench.cache | {"rendering": "processes"})
    assert parallel.run()["train"]["units_computed"] == 6
    assert parallel.digests() == whole.digests()
    assert [path.name for path in parallel.units()] == [path.name for path in whole.units()]


def test_a_process_has_the_kernels_from_its_start(pool):
    assert pool.submit(renderer_tasks.has_kernels).result(LIMIT_S)


def test_a_process_starts_without_torch_which_takes_seconds_and_memory(pool):
    assert not pool.submit(renderer_tasks.has_torch).result(LIMIT_S)


def depth(process: psutil.Process) -> int:
    try:
        return max((1 + depth(child) for child in process.children()), default=0)
    except psutil.NoSuchProcess:
        return 0


def test_a_bad_image_is_named_by_a_process_as_by_a_thread(pool, recipe):
    atom = rendered_batches.MixGroup((sample_reader.Sample(0, "broken", b"\x89PNG\r\n\x1a\nnonsense", 0),), (0,))
    for workers in (pool, ThreadPoolExecutor(1)):
        with pytest.raises(errors.DataError, match=r"^broken: cannot be decoded"):
            workers.submit(rendered_batches.render_group, atom, recipe).result(LIMIT_S)


@pytest.fixture
def recipe() -> schema.Recipe:
    digest = "0" * 64
    known = schema.Teacher(
        architecture="x",
        arguments={},
        weights_sha256=digest,
        size=8,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        precision="float32",
        num_classes=2,
        classes_sha256=digest,
    )
    return schema.Recipe(teacher=known, policy=view_policy.Policy(), k="all", tail="none")


@pytest.mark.parametrize(
    "workers", [pytest.param(0, id="in process"), pytest.param(1, id="local cluster", marks=pytest.mark.nightly)]
)
def test_a_killed_stage_leaves_no_process_behind(bench, workers):
    parallel = bench.but(cache=bench.cache | {"rendering": "processes", "workers": workers})
    process = parallel.start()
    started = psutil.Process(process.pid)
    # The stage, its worker if it has one, what the processes are forked from, and one of them.
    wait_for(lambda: process.poll() is not None or depth(started) >= 2 + workers)
    family = started.children(recursive=True)
    assert family, process.communicate()[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not any(alive(one) for one in family))


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_daemon_takes_threads(tmp_path):
    context = multiprocessing.get_context("forkserver")
    for daemon, expected in ((True, ThreadPoolExecutor), (False, render_processes.ProcessExecutor)):
        out = tmp_path / str(daemon)
        process = context.Process(target=renderer_tasks.note_kind, args=(out,), daemon=daemon)
        process.start()
        process.join(LIMIT_S)
        assert out.read_text() == expected.__name__


def test_a_process_that_dies_costs_its_unit_alone(bench, teacher, shards, monkeypatch):
    import torch

    from teachonce.cache import run_units, unit_plan
    from teachonce.teacher import teacher_network

    job = run_units.create_job(
        shards,
        "train",
        teacher_network.read_identity(teacher),
        view_policy.Policy(),
        aug_seeds=2,
        scratch=bench.root / "scratch",
        settings=cache_config.CacheConfig(k="all", seeds_per_unit=2),
        batch_size=6,
        device="cpu",
    )
    (bench.root / "scratch").mkdir(parents=True)
    producer = unit_worker.Worker(teacher, torch.device("cpu"), 1, render="processes")
    first, second, _ = unit_plan.enumerate_units(3, 2, 2)
    with monkeypatch.context() as patch:
        patch.setattr(rendered_batches, "render_group", renderer_tasks.die)
        result = producer.run_unit(job, first)
    assert result.record is None
    assert result.error.startswith("every process that rendered it died.")
    assert producer.run_unit(job, second).computed
    producer.close()


@pytest.mark.nightly
def test_processes_killed_within_their_results_cost_nothing():
    made = renderer_choice.start_pool("processes", 2)
    for round_ in range(5):
        # Until they begin to write.
        began = made.submit(renderer_tasks.large_result, round_)
        futures = [made.submit(renderer_tasks.large_result, seed) for seed in range(12)]
        began.result(LIMIT_S)
        for process in _renderers():
            process.kill()
        assert not wait(futures, LIMIT_S).not_done
        # One that two deaths met is a refusal, every other is there.
        for seed, future in enumerate(futures):
            assert isinstance(future.exception(), BrokenExecutor) or future.result()[0] == seed
        assert sum(future.exception() is None for future in futures) >= 10
    made.shutdown()


def _renderers() -> list[psutil.Process]:
    """Processes of this one's pools: children of what they are forked from."""
    servers = psutil.Process().children()
    return [process for server in servers for process in server.children() if alive(process)]


def test_a_task_that_kills_its_processes_fails_alone(pool):
    large = renderer_tasks.large_result
    before, fatal = pool.submit(large, 1), pool.submit(renderer_tasks.die)
    after = [pool.submit(large, seed) for seed in range(4)]
    with pytest.raises(BrokenExecutor, match="every process that tried it died"):
        fatal.result(LIMIT_S)
    assert [int(future.result(LIMIT_S)[0]) for future in (before, *after)] == [1, 0, 1, 2, 3]


def test_a_bug_in_a_process_brings_its_traceback(pool):
    with pytest.raises(ZeroDivisionError) as caught:
        pool.submit(divmod, 1, 0).result(LIMIT_S)
    assert "Traceback (most recent call last)" in caught.value.__notes__[0]


def test_what_has_not_begun_can_be_cancelled():
    made = renderer_choice.start_pool("processes", 1)
    futures = [made.submit(renderer_tasks.large_result, seed) for seed in range(50)]
    futures[0].result(LIMIT_S)
    made.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()
