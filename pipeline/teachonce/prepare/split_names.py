"""Folder names that mean a part of a data set and not a class."""

import re
from collections.abc import Iterable, Mapping

_TRAIN = frozenset(("train", "training", "trainset", "trn"))
_VAL = (
    frozenset(("val", "valid", "validate", "validation", "valset", "dev", "devel", "development")),
    frozenset(("test", "testing", "testset", "tst", "eval", "evaluation", "holdout", "heldout")),
)
"""In the order in which they are taken for the validation images."""
_BESIDE = frozenset(("data", "dataset", "image", "images", "img", "imgs", "photos", "seg", "set", "split"))
"""Words that a split's name may have beside it: train_images, seg_test, val2017."""


def classify(names: Iterable[str]) -> dict[str, str]:
    """The usual names among some: `train` and `val`, each with the name that stands for it, and the rest as `other`s.

    Returns:
        Name → `train`, `val` or `other`. One name at most is `train`, and one `val`.
    """
    pool = sorted(names)
    found: dict[str, str] = {}
    taken: set[str] = set()
    for split, words in (("train", _TRAIN), *(("val", words) for words in _VAL)):
        for name in (name for name in pool if _word(name) in words):
            found[name] = "other" if split in taken else split
            taken.add(split)
    return found


def suggested_settings(found: Mapping[str, str]) -> str:
    """What to set so that the recognised folders are the splits."""
    by_split = {split: name for name, split in found.items() if split != "other"}
    changed = [f"{split}: {name}" for split, name in by_split.items() if split != name]
    return ", ".join(("val_fraction: null", *changed))


def _word(name: str) -> str:
    words = re.findall(r"[^\W\d_]+", re.sub(r"hold[-_ ]?out|held[-_ ]?out", "holdout", name.casefold()))
    left = [word for word in words if word not in _BESIDE]
    return left[0] if len(left) == 1 else ""
