"""What a person sees of a wait: in the label of an open bar, else as a line."""

import logging
import time

from teachonce.core import progress


def test_a_wait_is_told_by_the_label_of_the_open_bar(capsys, caplog):
    with progress.bar(range(3), label="teacher: views", total=3, unit="view") as bar:
        with progress.status_if_slow("compiling", after_s=0.01):
            limit_s = time.monotonic() + 60
            while "compiling" not in str(bar.desc):
                assert time.monotonic() < limit_s
                time.sleep(0.01)
        assert bar.desc == "teacher: views"
    said = capsys.readouterr().err
    assert "teacher: views, compiling:   0%" in said
    assert said.rstrip().rsplit("\r", 1)[1].startswith("teacher: views:")
    assert caplog.records == []


def test_without_an_open_bar_it_is_a_line(caplog):
    progress.bar(range(3), label="done", total=3, unit="view").close()
    with caplog.at_level(logging.WARNING), progress.status_if_slow("compiling", after_s=0.0):
        limit_s = time.monotonic() + 60
        while not caplog.records:
            assert time.monotonic() < limit_s
            time.sleep(0.01)
    assert [record.message for record in caplog.records] == ["compiling"]


def test_a_short_wait_is_not_told(caplog):
    with progress.status_if_slow("compiling", after_s=60):
        pass
    assert caplog.records == []
