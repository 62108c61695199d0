"""Class names that a configuration lists, or names a list of."""

from collections.abc import Sequence

from teachonce.prepare.dataset_config import IMAGENET_1K


def from_config(classes: Sequence[str] | str | None) -> Sequence[str] | None:
    """The configured class names in label order; None where the source itself decides."""
    if classes != IMAGENET_1K:
        return None if classes is None else tuple(classes)
    # timm takes seconds to import, and only this list needs it.
    from timm.data.imagenet_info import ImageNetInfo  # noqa: PLC0415

    return tuple(str(name) for name in ImageNetInfo("imagenet-1k").label_names())
