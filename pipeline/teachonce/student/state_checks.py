"""What keeps a saved state from being one of this student's, so that nothing of it is taken before all of it fits."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from teachonce.student import checkpoint

_MOMENTS = {"step", "exp_avg", "exp_avg_sq"}


def first_mismatch(
    state: checkpoint.TrainingState, network: torch.nn.Module, optimizer: torch.optim.Optimizer, total: int
) -> str | None:
    """The first thing that does not fit, as `KEY must be CONDITION. Got VALUE`; None where all does.

    Args:
        state: whatever a file gave.
        network: whose weights it must have.
        optimizer: of the network.
        total: steps of the run.
    """
    wanted = {name: _signature(tensor) for name, tensor in network.state_dict().items()}
    # From cheap to dear, and what a later one takes for granted after what proves it; the last one reads every number.
    checks = (
        lambda: _counts(state.step, state.points, total),
        lambda: _tensors("model", state.model, wanted),
        lambda: _tensors("ema", state.ema, wanted),
        lambda: _groups(state.optimizer, optimizer),
        lambda: _moments(state.optimizer["state"], optimizer),
        lambda: None if state.is_finite() else "all numbers must be finite. Got one that is not",
    )
    return next((misfit for check in checks if (misfit := check())), None)


def _signature(value: object) -> tuple[tuple[int, ...], torch.dtype] | None:
    # A sparse one, or one without memory, has no numbers to load.
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
        return None
    return tuple(value.shape), value.dtype


def _counts(steps_done: object, points: object, total: int) -> str | None:
    if type(steps_done) is not int or not 0 < steps_done <= total:
        return f"step must be of the run's {total}. Got {steps_done!r:.100}"
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        return "points must be steps with numbers by name. Got others"
    steps = [step for step, _ in points]
    if any(step >= after for step, after in itertools.pairwise([*steps, steps_done])):
        return f"points must be of rising steps below {steps_done}. Got others"
    return None


def _is_point(point: object) -> bool:
    if not isinstance(point, tuple) or len(point) != 2 or type(point[0]) is not int or not isinstance(point[1], dict):
        return False
    return all(isinstance(name, str) and isinstance(value, float) for name, value in point[1].items())


def _tensors(
    where: str, tensors: object, wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype] | None]
) -> str | None:
    if not isinstance(tensors, dict) or tensors.keys() != wanted.keys():
        return f"{where} must have the student's tensors. Got others"
    for name, signature in wanted.items():
        if (present := _signature(tensors[name])) != signature:
            return f"{where}.{name} must be {signature}. Got {present}"
    return None


def _groups(state: object, optimizer: torch.optim.Optimizer) -> str | None:
    wanted = optimizer.state_dict()["param_groups"]
    refused = "optimizer.param_groups must be the student's. Got others"
    if not isinstance(state, dict) or state.keys() != {"state", "param_groups"}:
        return refused
    groups = state["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(wanted):
        return refused
    return None if all(map(_is_group, groups, wanted)) else refused


def _is_group(group: object, like: Mapping[str, object]) -> bool:
    """Whether it has the run's settings; its rate is set anew before each step, and keys come and go with releases."""
    if not isinstance(group, dict) or not isinstance(group.get("lr"), float):
        return False
    return all(name in group and group[name] == like[name] for name in ("params", "betas", "eps", "weight_decay"))


def _moments(state: object, optimizer: torch.optim.Optimizer) -> str | None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    if not isinstance(state, dict) or not state.keys() <= set(range(len(weights))):
        return "optimizer.state must be of the student's weights. Got others"
    for place, moments in state.items():
        wanted = {name: ((), torch.float32) if name == "step" else _signature(weights[place]) for name in _MOMENTS}
        if problem := _tensors(f"optimizer.state.{place}", moments, wanted):
            return problem
    return None
