"""Names of classes as people say them: ImageNet's ids in words."""

import re
from collections import Counter
from collections.abc import Sequence

_SYNSET = re.compile(r"n\d{8}")


def name_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """A name to show for each class, in label order.

    Args:
        classes: as the index of the shards has them; WordNet's ids, as of ImageNet, become words where all of them are
            such ids. An empty name becomes `class 7`, by its position.
    """
    if all(_SYNSET.fullmatch(name) for name in classes):
        return _describe_synsets(classes)
    return tuple(name or f"class {position}" for position, name in enumerate(classes))


def _describe_synsets(synsets: Sequence[str]) -> tuple[str, ...]:
    # Here: timm brings torch with it, which takes seconds, and most data sets have names of their own.
    from timm.data import ImageNetInfo  # noqa: PLC0415

    info = ImageNetInfo("imagenet-22k")
    synset_names = set(info.label_names())
    words = [info.label_name_to_description(synset) if synset in synset_names else synset for synset in synsets]
    counts = Counter(map(_first_name, words))
    # "crane" is a bird and a machine: only its definition tells which.
    return tuple(
        info.label_name_to_description(synset, detailed=True) if counts[_first_name(text)] > 1 else _first_name(text)
        for synset, text in zip(synsets, words, strict=True)
    )


def _first_name(words: str) -> str:
    return words.partition(",")[0]
