"""The curves of a run: kept in the checkpoint, shown by DVCLive.

After a kill, DVCLive's files may hold points of steps that will be run again; they are written anew from the
checkpoint.
"""

from pathlib import Path

from dvclive import Live

from teachonce.core import files

Point = dict[str, float]


class _Files(Live):
    """DVCLive's files and nothing else."""

    def _init_dvc(self) -> None:
        # It would open the Git repository around us, make it a DVC repository if it is none, and never close it.
        pass

    # Of its own tests, which DVCLIVE_TEST in anyone's environment asks for.
    _init_test = _init_dvc


class Curve:
    """Points by step, mirrored into DVCLive's files."""

    def __init__(self, folder: Path, points: list[tuple[int, Point]]) -> None:
        files.remove(folder)
        self.points: list[tuple[int, Point]] = []
        # DVCLive would else save an experiment and write a dvc.yaml, in the midst of the run of DVC that this stage is
        # part of.
        self._live = _Files(str(folder), save_dvc_exp=False, dvcyaml=False, report=None)
        for step, point in points:
            self.add(step, point)

    def add(self, step: int, point: Point) -> None:
        """Add the values of one step."""
        self.points.append((step, point))
        self._live.step = step
        for name, value in point.items():
            self._live.log_metric(name, value)
        self._live.make_summary()

    def end(self) -> None:
        """Let DVCLive write what it holds back."""
        self._live.end()
