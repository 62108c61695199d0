"""What a person's folder becomes, and that nothing is written unasked."""

import io
import subprocess
import unicodedata
from pathlib import Path

import pytest
import webdataset

from teachonce.check import check_findings, project_configs, setting_clashes
from teachonce.core import errors, project_params
from teachonce.prepare import prepare_shards
from teachonce.shards import index
from teachonce.tools.init import init_command, run_plan


def configs_fit(folder: Path) -> project_configs.LoadedConfigs:
    """All that params.yaml names, read whole and against each other."""
    findings = check_findings.Findings()
    configs = project_configs.read(project_params.ConfigChoices(folder / "params.yaml", folder / "configs"), findings)
    assert findings.problems == []
    assert setting_clashes.cross_check(configs, 5) == []
    return configs


def prepared(project, tmp_path: Path) -> index.Index:
    """The index of the images, prepared as the written configuration says."""
    params = project.params()
    prepare_shards.prepare(project.dataset(str(params["dataset"])), Path(str(params["source"])), tmp_path / "shards")
    return index.read(tmp_path / "shards").index


def test_class_folders_of_any_name_run_as_they_stand(project, tmp_path, capsys):
    names = ["Bäume & Blätter", unicodedata.normalize("NFD", "Küste"), "weites Land"]
    project.classes(*names)
    project.put("weites Land/GROSS ü.JPG")
    project.put("weites Land/grau.PNG", project.picture("PNG", grey=True))
    project.init("--yes")
    configs = configs_fit(project.folder)
    assert list(configs.students) == ["plain", "soft", "soft1", "hard"]
    made = prepared(project, tmp_path)
    assert list(made.classes) == sorted(names)
    assert (made.nsamples("train"), made.nsamples("val")) == (16, 4)
    output = capsys.readouterr().out
    assert "20 images, 16 to learn from and 4 to measure on" in output
    assert "8  weites Land" in output
    assert "2 images whose ending has capitals" in output
    assert "1 grey image" in output
    assert output.endswith("Next: dvc repro\n")


def test_what_was_there_is_kept_and_twice_is_once(project, capsys):
    project.classes("a", "b")
    before = Path("params.yaml").read_bytes()
    project.init("--yes")
    assert Path("params.yaml.old").read_bytes() == before
    first = {path: path.read_bytes() for path in Path().rglob("*.yaml*")}
    capsys.readouterr()
    project.init()
    assert {path: path.read_bytes() for path in Path().rglob("*.yaml*")} == first
    assert capsys.readouterr().out.endswith("All of it is written already. Next: dvc repro\n")


def test_a_second_folder_leaves_what_was_there_first(project):
    project.classes("a", "b")
    first = Path("params.yaml").read_bytes()
    project.init("--yes")
    second = Path("params.yaml").read_bytes()
    project.images = project.images.with_name("others")
    project.classes("a", "b")
    project.init("--yes")
    assert Path("params.yaml.old").read_bytes() == first
    assert Path("params.yaml.old2").read_bytes() == second


@pytest.mark.parametrize("name", ["2024_05_01", "2024", "1e3", "0x1f", "null", "True", "on", "ü", "_"])
def test_a_folder_of_any_name_is_read_back_as_text(name, project):
    project.images = project.images.with_name(name)
    project.classes("a", "b")
    project.init("--yes")
    configs_fit(project.folder)


def test_what_a_person_changed_is_shown_before_it_is_set_back(project, capsys):
    project.classes("a", "b")
    project.init("--yes")
    views = Path("configs/views/images.yaml")
    changed = views.read_text().replace("flip: 0.5", "flip: 0.0")
    views.write_text(changed)
    capsys.readouterr()
    project.init("--yes")
    assert "-  flip: 0.0" in capsys.readouterr().out
    assert "flip: 0.5" in views.read_text()
    assert Path("configs/views/images.yaml.old").read_text() == changed


def test_a_configuration_of_something_else_is_left_alone(project):
    project.classes("a", "b")
    other = Path("configs/views/images.yaml")
    other.write_text("# Mine\n")
    project.init("--yes")
    assert other.read_text() == "# Mine\n"
    assert project.params()["dataset"] == "images_2"
    configs_fit(project.folder)


def test_without_a_terminal_nothing_is_written(project, monkeypatch, capsys):
    project.classes("a", "b")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(errors.ConfigError, match=r"wrote nothing: there is no terminal to ask at\. Add --yes"):
        project.init()
    assert "+dataset: images # " in capsys.readouterr().out
    assert not Path("configs/dataset/images.yaml").exists()


@pytest.mark.parametrize(("answer", "written"), [("y", True), ("", False), ("n", False)])
def test_a_person_is_asked(answer, written, project, monkeypatch):
    project.classes("a", "b")
    terminal = io.StringIO(f"{answer}\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    project.init()
    assert Path("configs/dataset/images.yaml").exists() == written


def test_elsewhere_it_says_how_to_get_a_clone(tmp_path, monkeypatch, project):
    (project.folder / "stages/deep").mkdir()
    monkeypatch.chdir(project.folder / "stages/deep")
    with pytest.raises(errors.ConfigError, match=f"Go there: cd {project.folder}"):
        init_command.main([str(tmp_path)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.ConfigError, match=r"works in a clone of the project.*Get one: git clone"):
        init_command.main([str(tmp_path)])


def test_a_queued_run_finds_images_that_git_does_not_hold(project):
    images = project.folder / "data/pictures"
    project.images = images
    project.classes("a", "b")
    project.init("--yes")
    assert project.params()["source"] == str(images)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", "add", "data"], check=True)
    project.init("--yes")
    assert project.params()["source"] == "data/pictures"


def test_splits_under_any_name(project, tmp_path):
    project.classes("Training/a", "Training/b", "VALID/a", "VALID/b", "test/a", "test/b")
    project.init("--yes")
    assert (project.dataset().train, project.dataset().val, project.dataset().val_fraction) == (
        "Training",
        "VALID",
        None,
    )
    assert prepared(project, tmp_path).nsamples("val") == 12


def test_a_test_split_without_classes_measures_nothing(project, tmp_path, capsys):
    project.classes("train/a", "train/b")
    project.put("test/1.jpg")
    project.init("--yes")
    assert "test holds no class folders" in capsys.readouterr().out
    assert project.params()["source"] == str(project.images / "train")
    assert prepared(project, tmp_path).nsamples("val") == 2


def test_images_alone_are_distilled_without_labels(project, tmp_path, capsys):
    for number in range(5):
        project.put(f"pictures/{number}.jpg")
    project.init("--yes")
    assert "no image has a label" in capsys.readouterr().out
    configs = configs_fit(project.folder)
    assert [(student.alpha, student.token) for student in configs.students.values()] == [(1.0, False)] * 3
    assert project.params()["teacher"] == "tf_efficientnet_lite0"
    assert prepared(project, tmp_path).labelled("train") == 0


def test_odd_images_are_told_of_and_do_not_stop_it(project, tmp_path, capsys):
    project.classes("a", "b")
    project.put("a/cut.jpg", project.picture()[:200])
    project.put("a/again.jpg", (project.images / "b/1.jpg").read_bytes())
    project.put("a/tiny.jpg", project.picture(size=(9, 8)))
    project.put("cover.jpg")
    project.init("--yes")
    output = capsys.readouterr().out
    assert "1 image cannot be used: a/cut.jpg" in output
    assert "a/again.jpg" in output.partition("1 image with the bytes of another: ")[2]
    assert "1 image with a side below 32 pixels" in output
    made = prepared(project, tmp_path)
    assert made.nsamples("train") + made.nsamples("val") == 15
    assert len(made.skipped) == 1


def test_each_class_is_learnt_and_measured_even_where_images_are_few(project, tmp_path):
    project.classes("a", "b", "c", count=5)
    project.init("--yes")
    settings = project.dataset()
    assert settings.split_seed > 0
    made = prepared(project, tmp_path)
    assert (made.nsamples("train"), made.nsamples("val")) == (12, 3)


@pytest.mark.parametrize(
    ("names", "globs"),
    [
        (
            ("x-train-00.tar", "x-train-01.tar", "x-validation-00.tar", "x-test-00.tar"),
            (("x-train-*.tar",), ("x-validation-00.tar",)),
        ),
        (("train/0.tar", "train/1.tar", "test/0.tar", "test/1.tar"), (("train/*.tar",), ("test/*.tar",))),
        (("part [1].tar", "part [2].tar", "part [3].tar"), (("part [[]1].tar", "part [[]2].tar"), ("part [[]3].tar",))),
    ],
)
def test_tars_are_split_by_their_names(names, globs, project, tmp_path):
    for name in names:
        project.tar(name)
    project.put("classes.txt", "Äpfel\nBirnen\n\nKiwi\n".encode())
    project.init("--yes")
    assert (project.dataset().train, project.dataset().val) == globs
    made = prepared(project, tmp_path)
    assert list(made.classes) == ["Äpfel", "Birnen", "Kiwi"]
    assert made.nsamples("train") == 12


def test_json_names_the_labels_of_tars(project):
    for name in ("train-0.tar", "val-0.tar"):
        project.tar(name, json='{"class": "kind %d"}')
    project.init("--yes")
    assert project.dataset().classes == ("kind 0", "kind 1", "kind 2")


def test_tars_without_labels_are_distilled_without_labels(project, tmp_path):
    for name in ("0.tar", "1.tar"):
        project.tar(name, label=False)
    project.init("--yes")
    configs_fit(project.folder)
    assert prepared(project, tmp_path).labelled("train") == 0


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("all.tar", {}, "is one tar alone: there is nothing to measure on"),
        ("0.tar.gz", {}, r"its 1 tars are compressed.*gunzip"),
        ("notes.txt", {}, "holds no image and no tar"),
    ],
)
def test_what_cannot_be_used_is_one_line(name, kind, message, project):
    project.tar(name, **kind)
    with pytest.raises(errors.DataError, match=message):
        project.init("--yes")


def test_labels_in_json_alone_are_refused(project):
    for name in ("0.tar", "1.tar"):
        project.tar(name, label=False, json='{"label": %d}')
    with pytest.raises(errors.DataError, match=r"has its labels in \.json \(label\) alone.*a \.cls beside each image"):
        project.init("--yes")


def test_tars_of_class_folders_are_said_to_want_unpacking(project, tmp_path, capsys):
    for name in ("train", "val"):
        for number, folder in enumerate(("Berge", "Tal")):
            (tmp_path / name / folder).mkdir(parents=True)
            (tmp_path / name / folder / f"{number}.jpg").write_bytes(project.picture())
        tar = project.put(f"{name}.tar", b"")
        subprocess.run(["tar", "--sort=name", "-cf", tar, "-C", tmp_path / name, "Berge", "Tal"], check=True)
    project.init("--yes")
    told = "note: the tars hold folders (Berge, Tal) and no .cls: if those are classes, unpack them: tar xf TAR"
    assert told in capsys.readouterr().out


def test_labels_that_are_counted_from_one_are_told(project, capsys):
    for name in ("train-0.tar", "val-0.tar"):
        project.tar(name, first_label=1)
    project.init("--yes")
    assert (
        "note: labels begin at 1, so that class 0 has no image: is another counting meant?" in capsys.readouterr().out
    )


def test_one_folder_alone_is_no_class(project, capsys):
    project.classes("Berge")
    project.init("--yes")
    assert "note: Berge is the one folder with images: one class tells nothing apart" in capsys.readouterr().out


def test_a_file_in_place_of_the_folder(project):
    project.images = project.put("a/0.jpg")
    with pytest.raises(errors.ConfigError, match=rf"Got the file {project.images}\. Name the folder it lies in: "):
        project.init("--yes")


def test_pictures_that_nothing_decodes_are_named_with_what_helps(project, caplog):
    project.classes("a", "b")
    project.put("a/IMG_1.HEIC", b"ftypheic")
    project.put("a/notes.txt", b"")
    project.init("--yes")
    assert "2 files passed over that are no images by their name: 1 .heic, 1 .txt." in caplog.text
    assert "Pictures in .heic are to be saved as JPEG first" in caplog.text


def test_many_images_get_a_teacher_of_their_own(project, monkeypatch):
    monkeypatch.setattr(run_plan, "_TRAINING_S", 1.0)
    project.classes("a", "b")
    project.init("--yes")
    configs = configs_fit(project.folder)
    assert project.params()["teacher"] == "images"
    assert (configs.teacher.weights.head_epochs, configs.teacher.weights.epochs) == (1, 9)


def test_tars_of_both_common_writers(project, tmp_path):
    with webdataset.ShardWriter(f"{project.put('x', b'').parent}/train-%04d.tar", maxcount=4, verbose=0) as writer:
        for number in range(9):
            writer.write({"__key__": f"{number:04d}", "jpg": project.picture(), "cls": number % 2, "json": {"a": 1}})
    loose = tmp_path / "loose"
    loose.mkdir()
    for number in range(4):
        (loose / f"Bild {number}.JPG").write_bytes(project.picture())
        (loose / f"Bild {number}.cls").write_text(f"{number % 2}\n")
    subprocess.run(["tar", "--sort=name", "-cf", project.images / "test-0000.tar", "-C", loose, "."], check=True)
    project.init("--yes")
    assert (project.dataset().train, project.dataset().val) == (("train-*.tar",), ("test-0000.tar",))
    made = prepared(project, tmp_path)
    assert (made.nsamples("train"), made.nsamples("val"), list(made.classes)) == (9, 4, ["0", "1"])
