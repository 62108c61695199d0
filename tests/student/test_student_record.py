"""The record of a student: what is written is what is read, whatever its kind, and what was written before."""

import json
import shutil

import pytest
import reseal
import runs

from teachonce.core import errors
from teachonce.student import student_record, student_spec

SHORT = {"epochs": 1, "warmup_epochs": 0}


@pytest.fixture(scope="module")
def folders(world, tmp_path_factory):
    """Folders of students by kind; made by the first test that asks."""
    made = {}

    def folder(command, tmp_path, kind: str):
        if kind not in made:
            knobs = {"none": {}, "soft": {"alpha": 0.6, "tau": 3.0}, "hard": {"alpha": 0.5}}[kind]
            runs.in_process(command(world, settings=SHORT, students={"x": {"model": "x", "kind": kind, **knobs}}))
            made[kind] = shutil.copytree(tmp_path / "out/model", tmp_path_factory.mktemp(kind) / "model")
        return shutil.copytree(made[kind], tmp_path / "student")

    return folder


@pytest.mark.parametrize("kind", ["none", "soft", "hard"])
def test_what_is_written_is_read(command, folders, tmp_path, kind):
    folder = folders(command, tmp_path, kind)
    data = json.loads((folder / student_record.NAME).read_text())
    record = student_record.read(folder).record
    assert record.student == student_spec.parse_spec(data["student"], tmp_path, "x")
    assert student_spec.all_keys(record.student) == data["student"]
    assert record.model_dump(mode="json") == {name: value for name, value in data.items() if name != "digest"}
    student_record.write_record(tmp_path, record)
    assert (tmp_path / student_record.NAME).read_bytes() == (folder / student_record.NAME).read_bytes()


def test_a_record_of_before_is_read_and_one_of_after_is_refused(command, folders, tmp_path):
    folder = folders(command, tmp_path, "hard")
    path = folder / student_record.NAME
    whole = student_record.read(folder).record
    # As they were before a start and the arithmetic were told.
    reseal.change(path, drop=("start", "arithmetic"))
    assert student_record.read(folder).record == whole.model_copy(update={"arithmetic": None})
    reseal.change(path, format=2)
    with pytest.raises(errors.DataError, match=rf"{path}: format is refused: input should be 1\. Got 2\. Train it"):
        student_record.read(folder)
