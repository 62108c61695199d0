"""Folder names that mean a part of a data set and not a class."""

import re
from collections.abc import Iterable, Mapping

_TRAIN = frozenset(("train", "training", "trainset", "trn"))
_VAL = (
    frozenset(("val", "valid", "validate", "validation", "valset", "dev", "devel", "development")),
    frozenset(("test", "testing", "testset", "tst", "eval", "evaluation", "holdout", "heldout")),
)
"""In the order of preference: a folder `test` is the validation split only where there is no `val`."""
_FILLER_WORDS = frozenset(("data", "dataset", "image", "images", "img", "imgs", "photos", "seg", "set", "split"))
"""Words that a split's name may have beside it: train_images, seg_test, val2017."""


def classify(names: Iterable[str]) -> dict[str, str]:
    """The names among some that usually mean a split, each with the split that it stands for.

    Returns:
        Name → `train`, `val` or `other`. One name at most is `train`, and one `val`.
    """
    sorted_names = sorted(names)
    split_by_name: dict[str, str] = {}
    assigned: set[str] = set()
    for split, words in (("train", _TRAIN), *(("val", words) for words in _VAL)):
        for name in (name for name in sorted_names if _word(name) in words):
            split_by_name[name] = "other" if split in assigned else split
            assigned.add(split)
    return split_by_name


def suggested_settings(split_by_name: Mapping[str, str]) -> str:
    """What to set so that the recognised folders are the splits."""
    name_by_split = {split: name for name, split in split_by_name.items() if split != "other"}
    changed = [f"{split}: {name}" for split, name in name_by_split.items() if split != name]
    return ", ".join(("val_fraction: null", *changed))


def _word(name: str) -> str:
    words = re.findall(r"[^\W\d_]+", re.sub(r"hold[-_ ]?out|held[-_ ]?out", "holdout", name.casefold()))
    # One word besides the fillers: train_images means a split, train_station a class.
    remaining = [word for word in words if word not in _FILLER_WORDS]
    return remaining[0] if len(remaining) == 1 else ""
