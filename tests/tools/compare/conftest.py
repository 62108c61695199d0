import answered
import pytest


@pytest.fixture
def project(tmp_path, monkeypatch) -> answered.Project:
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return answered.Project(tmp_path / "project")
