import re
import shlex
import subprocess
import sys

import pytest
from answered import PATHS, student

from teachonce.core import errors, files


def rows(said: str) -> list[list[str]]:
    """Cells of the table, the header first."""
    lines = said.split("\n\n", maxsplit=1)[0].splitlines()
    return [re.split(r"  +", line.strip()) for line in lines if "──" not in line]


def test_a_sweep_is_a_table_of_what_differs(project, capsys):
    project.commit(plain=student(range(8), kind="none"), soft=student(range(5)))
    project.experiment("hot", plain=student(range(8), kind="none"), soft=student(range(2), tau=5.0))
    project.experiment("cold", plain=student(range(8), kind="none"), soft=student(range(20), tau=1.0))
    project.compare()
    said = capsys.readouterr().out
    header, *body = rows(said)
    assert header == [
        *("student", "kind", "tau", "seeds", "top-1 in %", "behind the best, points", "passes", "training, min"),
        "revision",
    ]
    # Best first; students that did not change count once; alpha, epochs and the rest are the same for all.
    assert [(row[0], row[-1]) for row in body[:-1]] == [
        ("soft", "hot"),
        ("soft", "workspace"),
        ("plain", "workspace"),
        ("soft", "cold"),
    ]
    assert body[1] == ["soft", "soft", "3", "1", "95.00 ± 2.18", "3.00 ± 1.71", "no", "1.0", "workspace"]
    assert body[3] == ["soft", "soft", "1", "1", "80.00 ± 4.00", "18.00 ± 3.84", "yes", "1.0", "cold"]
    assert body[-1] == ["teacher", "100.00"]
    assert "Each setting has one seed" in said
    assert "(McNemar), not settings" in said
    assert "soft, tau 5 against soft, tau 1: +18.00 ± 3.84 points; 18 images against 0, p = 7.6e-06" in said


def test_settings_with_three_seeds_are_compared_as_settings(project, capsys):
    def group(**entry) -> dict[str, object]:
        return {
            f"{entry['kind']}-{seed}": student(range(3 + seed + 9 * (entry["kind"] == "hard")), seed=seed, **entry)
            for seed in range(3)
        }

    project.commit(**group(kind="soft"), **group(kind="hard"))
    project.compare("workspace")
    said = capsys.readouterr().out
    _, best, other, _ = rows(said)
    assert best[:5] == ["soft", "soft", "3", "96.00 ± 1.00", "1.0"]
    assert other[:6] == ["hard", "hard", "3", "87.00 ± 1.00", "9.00 ± 0.82", "yes"]
    assert "soft against hard: +9.00 ± 0.82 points, over seeds" in said
    assert "McNemar" not in said


def test_named_revisions_alone(project, capsys):
    commit = project.commit(soft=student(range(5)))
    project.git("tag", "first")
    project.experiment("hot", soft=student(range(2), tau=5.0))
    project.git("branch", "other")
    project.compare("hot", "first")
    assert [row[-1] for row in rows(capsys.readouterr().out)[1:3]] == ["hot", "first"]
    project.compare("other", commit[:10])
    assert [row[-1] for row in rows(capsys.readouterr().out)[1:2]] == ["other"], "one student, once"
    with pytest.raises(errors.ConfigError) as refusal:
        project.compare("hott")
    assert str(refusal.value) == (
        "teachonce compare: REV must be an experiment, a branch, a tag, a commit or workspace. Got hott. "
        "List them: dvc exp list --all-commits; git branch; git tag. Did you mean hot?"
    )


def test_what_is_not_in_the_cache_is_named_with_its_cure_and_the_rest_is_shown(project, capsys):
    project.commit(soft=student(range(5)))
    project.experiment("hot", soft=student(range(2), tau=5.0))
    project.experiment("warm", soft=student(range(3), tau=4.0))
    project.git("remote", "add", "team", "elsewhere")
    (ref,) = project.git("for-each-ref", "--format=%(refname)", "refs/exps/**/hot").splitlines()
    files.remove(project.kept("records/evaluate/soft.json", ref))
    project.compare()
    said = capsys.readouterr().out
    assert [row[-1] for row in rows(said)[1:3]] == ["warm", "workspace"]
    assert (
        "hot: 1 file of its results is not in DVC's cache here: records/evaluate/soft.json. "
        "Fetch it: dvc exp pull team hot\n"
    ) in said


def test_answers_to_other_images_are_shown_and_not_paired(project, capsys):
    project.commit(soft=student(range(5)))
    project.experiment("other", soft=student(range(30), keys_crc32=8))
    project.compare()
    said = capsys.readouterr().out
    header, best, other, _ = rows(said)
    assert header[1] == str(PATHS.records.parent / "shards")
    assert "–" not in best
    assert "yes" not in other
    assert "No two of them answered the same images here" in said


def test_the_working_folder_serves_where_the_cache_was_cleared(project, capsys):
    project.commit(soft=student(range(5)))
    listing = files.parse_json(project.kept("predictions/soft").read_bytes())
    kept = {
        "records/evaluate/soft.json": project.kept("records/evaluate/soft.json"),
        f"predictions/soft/{listing[0]['relpath']}": project.cached(listing[0]["md5"]),
    }
    for path, source in kept.items():
        (project.folder / path).parent.mkdir(parents=True)
        (project.folder / path).write_bytes(source.read_bytes())
    files.remove(project.folder / ".dvc/cache")
    project.compare("workspace")
    assert rows(capsys.readouterr().out)[1][2] == "95.00 ± 2.18"


def test_outside_a_project_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    words = [word for name in (*PATHS.__slots__, "out") for word in (f"--{name}", name)]
    done = subprocess.run(
        [sys.executable, "-m", "teachonce", "compare", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: teachonce compare: finds no repository of DVC here")
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_ends_it_quietly(project):
    project.commit(soft=student(range(5)))
    words = [word for name in PATHS.__slots__ for word in (f"--{name}", str(getattr(PATHS, name)))]
    command = shlex.join([sys.executable, "-m", "teachonce", "compare", *words, "--out", "../compare"])
    done = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True, check=False)  # noqa: S602
    assert [line for line in done.stderr.splitlines() if line and not line.startswith("compare: ")] == []
