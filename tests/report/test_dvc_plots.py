"""What `dvc plots show` draws from."""

import csv
from pathlib import Path

import numpy as np

from teachonce.report import dvc_plots


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_students_share_a_table_and_each_has_its_confusion(whole, tmp_path):
    names = ["plain", "zeal", "hard-1"]
    dvc_plots.write_plots(whole.paths(), tmp_path / "plots")
    metrics = whole.gather(names)
    label_loss = rows(tmp_path / "plots/label_loss.csv")
    assert list(dict.fromkeys(row["student"] for row in label_loss)) == names
    steps, values = metrics.curves["plain"]["label_loss"]
    assert [row["step"] for row in label_loss if row["student"] == "plain"] == [str(step) for step in steps]
    assert float(label_loss[0]["label_loss"]) == np.float64(f"{values[0]:.5g}")
    assert {row["student"] for row in rows(tmp_path / "plots/teacher_loss.csv")} == {"zeal", "hard-1"}
    accuracies = {(row["student"], row["head"]): float(row["top1"]) for row in rows(tmp_path / "plots/top1.csv")}
    assert accuracies["plain", "class head"] == round(100 * metrics.students["plain"].heads["class"].top1, 2)
    assert ("zeal", "distillation head") in accuracies
    assert [row["step"] for row in rows(tmp_path / "plots/top1_by_pass.csv")] == ["2", "4", "6"] * 3
    for name in names:
        pairs = rows(tmp_path / "plots/confusion" / f"{name}.csv")
        assert len(pairs) == 13
        right = sum(pair["actual"] == pair["predicted"] for pair in pairs)
        head = metrics.students[name].heads
        assert right / 13 == head.get("both", head["class"]).top1
        assert not {letter for pair in pairs for text in pair.values() for letter in text} & set("<>"), "DVC's page"


def test_without_labels_the_tables_are_empty(bare, tmp_path):
    dvc_plots.write_plots(bare.paths(), tmp_path / "plots")
    assert rows(tmp_path / "plots/top1.csv") == rows(tmp_path / "plots/top1_by_pass.csv") == []
    assert rows(tmp_path / "plots/confusion/twin.csv") == []


def test_of_many_classes_those_with_most_errors_are_shown():
    label_N = np.arange(90) % 45
    answer_N = np.where(label_N < 20, label_N + 20, label_N)
    pairs = dvc_plots._confusion({"label": label_N, "class": answer_N}, [f"class {i}" for i in range(45)])
    names = {name for pair in pairs for name in pair}
    assert len(pairs) == 90
    assert len(names) == 31
    assert "…" in names
