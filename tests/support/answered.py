"""A project whose students answered without a network: their records and predictions lie in git and DVC's cache."""

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from teachonce.evaluate import evaluation_record, metrics, predictions
from teachonce.tools.compare import compare_command, snapshot

IMAGES = 100
TRUTH_N = np.arange(IMAGES) % 5
PATHS = snapshot.ResultPaths(*(PurePosixPath(path) for path in ("records", "costs", "metrics", "predictions")))
TEACHER = "d" * 64
CURVE = "step\tlabel_loss\n" + "".join(f"{step}\t{2.0 - step / 10}\n" for step in range(9))


@dataclass(frozen=True)
class Answering:
    """A student: its entry in params.yaml, and which images it gets wrong."""

    entry: dict[str, object]
    wrong: frozenset[int]
    recipe: tuple[tuple[str, object], ...] = (("epochs", 3),)
    keys_crc32: int = 7


def student(wrong=(), *, recipe=None, keys_crc32=7, **entry) -> Answering:
    full = {"model": "tiny", "kind": "soft", "alpha": 0.5, "tau": 3.0, "seed": 0} | entry
    return Answering(full, frozenset(wrong), tuple((recipe or {"epochs": 3}).items()), keys_crc32)


class Project:
    """Repositories of git and DVC, of which each commit has its own results."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main")
        (folder / ".dvc").mkdir()
        (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
        (folder / ".gitignore").write_text("/.dvc/cache\n/.dvc/tmp\n/records\n/predictions\n/costs\n")

    def git(self, *words: str) -> str:
        names = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {**os.environ, **names}
        done = subprocess.run(
            ["git", *words], cwd=self.folder, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, **students: Answering) -> str:
        """Commit the results of some students; the commit."""
        (self.folder / "params.yaml").write_text(
            json.dumps({"students": {name: each.entry for name, each in students.items()}})
        )
        stages = {}
        for name, each in students.items():
            stages |= self._run(name, each)
        (self.folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
        self.git("add", "-A")
        self.git("commit", "-qm", "results")
        return self.git("rev-parse", "HEAD")

    def experiment(self, name: str, **students: Answering) -> None:
        """The same as DVC keeps a run: a commit on the present one that no branch has."""
        base = self.git("rev-parse", "HEAD")
        commit = self.commit(**students)
        self.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
        self.git("reset", "-q", "--hard", base)

    def cached(self, md5: str) -> Path:
        return self.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]

    def kept(self, path: str, revision: str = "HEAD") -> Path:
        """The file in DVC's cache of an output at a revision."""
        stages = json.loads(self.git("show", f"{revision}:dvc.lock"))["stages"].values()
        (md5,) = [out["md5"] for stage in stages for out in stage["outs"] if out["path"] == path]
        return self.cached(md5)

    def compare(self, *words: str) -> None:
        options = [word for name in PATHS.__slots__ for word in (f"--{name}", str(getattr(PATHS, name)))]
        compare_command.main([*words, *options, "--out", str(self.folder.parent / "compare")])

    def _run(self, name: str, each: Answering) -> dict[str, object]:
        params = {"params.yaml": {f"students.{name}": each.entry}, "configs/student/tiny.yaml": dict(each.recipe)}
        curve = self.folder / PATHS.curves / name / "plots/metrics/label_loss.tsv"
        curve.parent.mkdir(parents=True, exist_ok=True)
        curve.write_text(CURVE)
        evaluation, predicted = self._answers(each)
        listing = json.dumps([{"relpath": predictions.NAME, "md5": self._keep(predicted)}]).encode()
        cost = json.dumps({"wall_s": 60.0, "cpus": 2}).encode()
        return {
            f"train@{name}": {
                "cmd": "train",
                "deps": [
                    {"path": "stages/train.py", "md5": "0" * 32},
                    {"path": "shards", "md5": f"{each.keys_crc32:04d}" + "1" * 28 + ".dir"},
                ],
                "params": params,
                "outs": [{"path": f"costs/train/{name}.json", "md5": self._keep(cost)}],
            },
            f"evaluate@{name}": {
                "cmd": "evaluate",
                "params": params,
                "outs": [
                    {"path": f"records/evaluate/{name}.json", "md5": self._keep(evaluation)},
                    {"path": f"predictions/{name}", "md5": f"{self._keep(listing, '.dir')}.dir"},
                ],
            },
        }

    def _answers(self, each: Answering) -> tuple[bytes, bytes]:
        wrong_N = np.isin(np.arange(IMAGES), list(each.wrong))
        origin = predictions.Provenance(keys_crc32=each.keys_crc32, classes_sha256="c" * 64, teacher_sha256=TEACHER)
        answers = {"label": TRUTH_N, "teacher": TRUTH_N, "class": np.where(wrong_N, TRUTH_N + 1, TRUTH_N)}
        sha256 = predictions.save(self.folder.parent, answers, origin)
        top1 = 1 - len(each.wrong) / IMAGES
        score = {"top1": top1, "top1_se": metrics.standard_error(top1, IMAGES)}
        entry = each.entry if each.entry["kind"] != "none" else {"model": "tiny", "kind": "none", "seed": 0}
        digest = hashlib.sha256(repr(each).encode()).hexdigest()
        evaluation = evaluation_record.Evaluation(
            student=evaluation_record.Knobs(**entry, token=True),
            architecture="deit",
            weights_sha256=digest,
            predictions_sha256=sha256,
            parameters=1000,
            images=IMAGES,
            classes=5,
            heads={"class": evaluation_record.HeadMetrics(**score, agreement=top1, kl=0.1)},
            teacher=evaluation_record.Accuracy(top1=1.0, top1_se=0.0),
            token_cosine=(),
            accuracy_by_pass=[{"passes": passes, "step": 9 * passes, "top1": top1 / (3 - passes)} for passes in (1, 2)],
            accepted=(),
        )
        data = evaluation.model_dump_json(exclude_none=True).encode()
        return data, (self.folder.parent / predictions.NAME).read_bytes()

    def _keep(self, data: bytes, ending: str = "") -> str:
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        path = self.cached(md5 + ending)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return md5
