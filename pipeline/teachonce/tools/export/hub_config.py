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
    record: student_record.StudentRecord,
    network: torch.nn.Module,
    classes: Sequence[str],
    evaluation: view_policy.Policy,
) -> dict[str, object]:
    """The content of `config.json`.

    Args:
        record: the student's.
        network: its model, which knows the names of its first and last layers.
        classes: class names in label order.
        evaluation: the views it was measured on.
    """
    # Names of layers only: the rest of `pretrained_cfg` speaks of timm's weights, which these are not.
    first_and_last = {name: network.pretrained_cfg[name] for name in ("first_conv", "classifier")}  # type: ignore[index]
    return {
        "architecture": record.architecture,
        "num_classes": len(classes),
        "num_features": network.num_features,
        "label_names": list(classes),
        "model_args": dict(record.recipe.arguments),
        "pretrained_cfg": {
            "num_classes": len(classes),
            "input_size": [3, record.recipe.size, record.recipe.size],
            "fixed_input_size": True,
            "mean": list(record.recipe.mean),
            "std": list(record.recipe.std),
            **crop_settings(evaluation),
            **first_and_last,
        },
    }


def crop_settings(evaluation: view_policy.Policy) -> dict[str, object]:
    """The part of an image that becomes the input, in timm's words; it rounds box and resize in another order."""
    # Without a centre crop, views show the whole image whatever its shape: `squash` in timm's words. Its default would
    # cut what the student was shown.
    frame = {"crop_pct": evaluation.center or 1.0, "crop_mode": "center" if evaluation.center else "squash"}
    return {"interpolation": evaluation.interpolation, **frame}
