"""`config.json`, from which timm rebuilds and feeds the model, from a folder or from a hub.

Source: timm `models/_hub.py` (`load_model_config_from_path`, `save_config_for_hf`).
Differs: nothing is taken over from timm's own weights of that architecture, neither licence nor address.
"""

from collections.abc import Sequence

import torch

from teachonce.student import student_record
from teachonce.views import view_policy

NAME = "config.json"


def timm_config(
    of: student_record.StudentRecord, network: torch.nn.Module, classes: Sequence[str], evaluation: view_policy.Policy
) -> dict[str, object]:
    """What timm reads.

    Args:
        of: the student.
        network: its model, which knows the names of its first and last layers.
        classes: class names in label order.
        evaluation: the views it was measured on.
    """
    first_and_last = {name: network.pretrained_cfg[name] for name in ("first_conv", "classifier")}  # type: ignore[index]
    return {
        "architecture": of.architecture,
        "num_classes": len(classes),
        "num_features": network.num_features,
        "label_names": list(classes),
        "model_args": dict(of.recipe.arguments),
        "pretrained_cfg": {
            "num_classes": len(classes),
            "input_size": [3, of.recipe.size, of.recipe.size],
            "fixed_input_size": True,
            "mean": list(of.recipe.mean),
            "std": list(of.recipe.std),
            **crop_settings(evaluation),
            **first_and_last,
        },
    }


def crop_settings(evaluation: view_policy.Policy) -> dict[str, object]:
    """The part of an image that becomes the input, in timm's words; it rounds box and resize in another order."""
    # In timm's words the whole image is squashed, not cut.
    frame = {"crop_pct": evaluation.center or 1.0, "crop_mode": "center" if evaluation.center else "squash"}
    return {"interpolation": evaluation.interpolation, **frame}
