"""Views as the teacher saw them, rendered from the samples of an open tar."""

from teachonce.format import schema
from teachonce.shards import decode, sample_reader
from teachonce.views import mixing


def render_view(
    recipe: schema.Recipe, tar: schema.Tar, samples: sample_reader.OpenTar, row: int, aug_seed: int
) -> mixing.Pixels:
    """One view: uint8 (3, size, size).

    Args:
        recipe: policy and size of the views.
        tar: the tar as the cache's extent has it.
        samples: of the tar.
        row: of the sample in the tar.
        aug_seed: of the view.

    Raises:
        DataError: an image has changed, or cannot be decoded.
    """
    policy = recipe.policy
    partner = mixing.partner_row(policy, tar.nsamples, tar.sha256, aug_seed, row)
    parts = [samples.sample(position) for position in ((row,) if partner is None else (row, partner))]
    # The row itself comes first, its partner second: of the two mixed views, the first is the row's.
    images = [decode.rgb_pixels(part.image, f"{tar.url}:{part.key}") for part in parts]
    views = mixing.render_mixed(policy, images, [part.key for part in parts], aug_seed, recipe.teacher.size)
    pixels: mixing.Pixels = views[0]
    return pixels
