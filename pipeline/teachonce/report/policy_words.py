"""A view policy in words: what chance does to an image, step by step."""

from teachonce.views import view_policy


def describe_policy(policy: view_policy.Policy) -> tuple[str, ...]:
    """A line for each step that the policy takes, in the order in which views are made."""
    first = "the whole image, resized to a square"
    if policy.crop:
        first = f"a random part of the image, {_span(policy.crop.scale, 100)} % of its area, resized to a square"
    elif policy.center:
        first = f"the centred square, {100 * policy.center:g} % of the shorter side, resized"
    steps = [f"{first} ({policy.interpolation})"]
    if policy.flip:
        steps.append(f"a flip, left to right, of {100 * policy.flip:g} % of the views")
    steps += [
        text
        for text in (_affine(policy), _jitter(policy), _rand_augment(policy), _erasing(policy), _mixing(policy))
        if text
    ]
    if policy.repeats > 1:
        steps.append(f"{policy.repeats} views of an image meet in one batch")
    return tuple(steps)


def _affine(policy: view_policy.Policy) -> str:
    if not policy.affine:
        return ""
    change = policy.affine
    parts = {
        f"a turn of up to {change.degrees:g}°": change.degrees,
        f"a shift of up to {100 * change.translate:g} % of the side": change.translate,
        f"a scaling by {_span(change.scale)}": change.scale != (1.0, 1.0),
        f"a shear of up to {change.shear:g}°": change.shear,
    }
    return ", ".join(text for text, is_drawn in parts.items() if is_drawn)


def _jitter(policy: view_policy.Policy) -> str:
    if not policy.color_jitter:
        return ""
    strengths = policy.color_jitter.model_dump().items()
    return "random " + ", ".join(f"{name} by up to {100 * value:g} %" for name, value in strengths if value)


def _rand_augment(policy: view_policy.Policy) -> str:
    if not policy.rand_augment:
        return ""
    rule = policy.rand_augment
    return (
        f"RandAugment: {rule.operations} random operations of fifteen, each applied to {100 * rule.probability:g} % of "
        f"the views, of strength {rule.magnitude:g} ± {rule.std:g} out of 10"
    )


def _erasing(policy: view_policy.Policy) -> str:
    if not policy.erase:
        return ""
    share, area = 100 * policy.erase.probability, _span(policy.erase.scale, 100)
    return f"a box of noise over {area} % of the area, in {share:g} % of the views"


def _mixing(policy: view_policy.Policy) -> str:
    if not policy.mix:
        return ""
    kinds = {"mixup": policy.mix.mixup_alpha, "cutmix": policy.mix.cutmix_alpha}
    names = " or ".join(f"{name} (Beta {alpha:g})" for name, alpha in kinds.items() if alpha)
    return f"a mix with another image of the tar, {names}, in {100 * policy.mix.probability:g} % of the views"


def _span(pair: tuple[float, float], scale: float = 1.0) -> str:
    low, high = (f"{scale * value:.4g}" for value in pair)
    return low if low == high else f"{low} to {high}"
