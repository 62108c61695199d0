"""What a strength in [0, 10] means for each of RandAugment's operations.

Source: timm `data/auto_augment.py` (its level functions), after Cubuk et al. 2019 (arXiv 1909.13719).
Differs: the sign is given, not drawn here; posterize keeps at least one bit, since none is black.
"""

from teachonce.views import hash_stream

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "Posterize",
    "Solarize",
    "SolarizeAdd",
    "Color",
    "Contrast",
    "Brightness",
    "Sharpness",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
"""Names in timm's order. Part of the cache's format: never reorder."""

MAX_LEVEL = 10.0

FACTOR_BITS = 12
"""Grid of blending factors, which are so integers to the kernels."""

_ARGUMENT_BITS = 20
_SIGNED_MAXIMA = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateXRel": 0.45, "TranslateYRel": 0.45}
_BLENDED = frozenset({"Color", "Contrast", "Brightness", "Sharpness"})
_NO_ARGUMENT = frozenset({"AutoContrast", "Equalize", "Invert"})


def operation_argument(name: str, level: float, *, negate: bool, increasing: bool) -> float | None:
    """The operation's one argument; None for an operation that takes none.

    Args:
        name: one of OPERATIONS.
        level: strength in [0, 10].
        negate: the drawn sign, for operations that go two ways.
        increasing: whether severity grows with the level; false is timm's older scale.

    Returns:
        Rotate: degrees; Shear: slope; Translate: fraction of the side; Color, Contrast, Brightness, Sharpness:
        blending factor, 1 being the image itself; Posterize: bits kept; Solarize: threshold; SolarizeAdd: addend.
    """
    fraction = level / MAX_LEVEL
    if name in _NO_ARGUMENT:
        return None
    if name in _SIGNED_MAXIMA:
        value = hash_stream.round_to_grid(fraction * _SIGNED_MAXIMA[name], _ARGUMENT_BITS)
        return -value if negate else value
    if name in _BLENDED:
        return hash_stream.round_to_grid(_blending_factor(fraction, negate=negate, increasing=increasing), FACTOR_BITS)
    return _integer_argument(name, fraction, increasing=increasing)


def _blending_factor(fraction: float, *, negate: bool, increasing: bool) -> float:
    if not increasing:
        return 0.1 + 1.8 * fraction
    return max(0.1, 1.0 - 0.9 * fraction) if negate else 1.0 + 0.9 * fraction


def _integer_argument(name: str, fraction: float, *, increasing: bool) -> int:
    if name == "SolarizeAdd":
        return int(110 * fraction)
    if name == "Posterize":
        # Truncated, as in timm, by whose levels published recipes are given.
        bits = int(4 * fraction)
        return max(1, 4 - bits if increasing else bits)
    threshold = int(256 * fraction)
    return 256 - threshold if increasing else threshold
