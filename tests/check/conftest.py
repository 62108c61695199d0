"""A project of configurations, changed at will, and what a check finds in it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from teachonce.check import check_settings, required_files
from teachonce.check.check_findings import Findings
from teachonce.check.dvc_lock import LastRuns
from teachonce.core.project_params import ConfigChoices

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Settings:
    """params.yaml and configs/ in a folder of their own."""

    folder: Path
    memory: Path

    def edit(self, file: str, change) -> None:
        path = self.folder / file
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        change(data)
        path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")

    def student(self, name: str, **values: object) -> None:
        plain = {"model": "deit_micro", "kind": "none"}
        self.edit("params.yaml", lambda data: data["students"].update({name: {**plain, **values}}))

    @property
    def places(self) -> required_files.ArtifactPaths:
        at = self.folder
        return required_files.ArtifactPaths(at / "shards", at / "students", at / "scratch", LastRuns(at / "dvc.lock"))

    def check(self, *, counted: bool = False) -> Findings:
        chosen = ConfigChoices(self.folder / "params.yaml", self.folder / "configs")
        return check_settings.collect_findings(chosen, self.places, self.memory, counted=counted)

    def problems(self) -> list[str]:
        """Every line, without the folder."""
        lines = [problem.line() for problem in self.check().problems]
        assert not any("\n" in line for line in lines)
        return [line.replace(f"{self.folder}/", "") for line in lines]


@pytest.fixture(scope="session")
def memory(tmp_path_factory):
    return tmp_path_factory.mktemp("memory")


@pytest.fixture
def settings(tmp_path, memory) -> Settings:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / "images").mkdir()
    project = Settings(tmp_path, memory)
    project.edit("params.yaml", lambda data: data.update(source=str(tmp_path / "images")))
    return project
