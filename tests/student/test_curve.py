"""Curves are DVCLive's files, whatever anyone's environment says of DVCLive."""

import pytest

from teachonce.student import curve


@pytest.mark.parametrize("name", ["DVCLIVE_TEST", "DVCLIVE_RESUME"])
def test_the_environment_changes_no_curve(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    points = [(step, {"loss": 1 / (step + 1)}) for step in range(3)]
    made = curve.Curve(tmp_path / "curves", points)
    made.end()
    lines = (tmp_path / "curves/plots/metrics/loss.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.partition("\t")[0] for line in lines] == ["step", "0", "1", "2"]
    assert made.points == points
