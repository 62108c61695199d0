"""Views as the teacher saw them, rendered from the samples of an open tar."""

from teachonce.format import schema
from teachonce.shards import decode, sample_reader
from teachonce.views import mixing


def render_view(
    recipe: schema.Recipe, tar: schema.Tar, samples: sample_reader.OpenTar, row: int, aug_seed: int
) -> mixing.Pixels:
    """One view: uint8 (3, size, size).

    Args:
        recipe: policy and size.
        tar: whose row it is.
        samples: of the tar.
        row: whose view.
        aug_seed: which view.

    Raises:
        DataError: an image has changed, or cannot be decoded.
    """
    policy = recipe.policy
    other = mixing.partner_row(policy, tar.nsamples, tar.sha256, aug_seed, row)
    parts = [samples.sample(place) for place in ((row,) if other is None else (row, other))]
    images = [decode.rgb(part.image, f"{tar.url}:{part.key}") for part in parts]
    views = mixing.render_mixed(policy, images, [part.key for part in parts], aug_seed, recipe.teacher.size)
    pixels: mixing.Pixels = views[0]
    return pixels
