"""The student as one ONNX graph: images of any size in, logits of both heads' mean out, checked against torch.

Shapes: B images, H and W of an image, C classes, S side of the student's input in pixels.
"""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from teachonce.core import errors, files
from teachonce.student import train_config
from teachonce.tools.export import image_views
from teachonce.views import view_policy

NAME = "model.onnx"
INPUT = "images"
OUTPUT = "logits"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference from torch's logits that is let pass, as a share of the largest logit or, below 1, of 1."""


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """An image that the graph and torch both answer."""

    image: npt.NDArray[np.uint8]
    """uint8 (H, W, 3): as decoded, what the graph is given."""
    view: npt.NDArray[np.uint8]
    """uint8 (3, S, S): as the student was measured on it, what torch is given."""


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """How close the exported graph is to the student."""

    images: int
    """Validation images that the graph was checked on."""
    difference: float
    """Largest difference of a logit from torch's on those images."""


class _LevelsToLogits(torch.nn.Module):
    """Normalisation and model as one, so that nobody who runs the graph has to know mean and standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: torch.nn.Module, config: train_config.TrainConfig) -> None:
        super().__init__()
        self.network = network
        # Buffers become constants of the graph. Times 255: its input is levels from 0 to 255.
        for name, value in (("mean", config.mean), ("std", config.std)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1) * 255)

    def forward(self, levels: Tensor) -> Tensor:
        """Logits float32 (B, C) of levels float32 (B, 3, S, S); outside training, timm averages the two heads."""
        logits_BC: Tensor = self.network((levels - self.mean) / self.std)
        return logits_BC


def require_libraries() -> None:
    """Refuse to begin without the libraries that write and run ONNX.

    Raises:
        ConfigError: one is not installed.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.ConfigError(
            "export", f"{', '.join(missing)} must be installed", "Install them: pip install 'teachonce[export]'"
        )


def write_model(
    path: Path, network: torch.nn.Module, config: train_config.TrainConfig, evaluation: view_policy.Policy
) -> None:
    """Write the graph; equal weights give equal bytes.

    Args:
        path: the file to write.
        network: in evaluation mode, on the CPU.
        config: size of the input in pixels, and its normalisation.
        evaluation: the part of an image that becomes the input.
    """
    graph = torch.nn.Sequential(
        image_views.ImageViews(evaluation, config.size), _LevelsToLogits(network, config)
    ).eval()
    # Two images, not one, and no square: the exporter would take a batch of one, or equal sides, for constants.
    example = torch.zeros((2, config.size + 3, config.size + 5, 3), dtype=torch.uint8)
    program = torch.onnx.export(
        graph,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
    )
    if program is None:
        raise TypeError("torch's exporter gave no program")
    proto = program.model_proto
    _drop_metadata(proto.graph)
    files.write_bytes(path, proto.SerializeToString())


def compare_with_torch(
    path: Path, network: torch.nn.Module, config: train_config.TrainConfig, checked: Iterable[CheckedImage]
) -> ExportCheck:
    """How near the graph's logits in ONNX Runtime come to torch's, image by image.

    Args:
        path: file of the graph.
        network: in evaluation mode, on the CPU.
        config: size of the input in pixels, and its normalisation.
        checked: some validation images with their views.

    Raises:
        NumericsError: a difference is larger than `TOLERANCE` allows, or not a number.
    """
    import onnxruntime  # noqa: PLC0415 - an optional extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    reference = _LevelsToLogits(network, config)
    answers: list[npt.NDArray[np.float32]] = []
    expected: list[npt.NDArray[np.float32]] = []
    for item in checked:
        # Two sizes of batch: neither may be frozen into the graph.
        batch = np.stack([item.image] * (1 if answers else 2))
        answers.append(session.run([OUTPUT], {INPUT: batch})[0][-1])
        with torch.inference_mode():
            expected.append(reference(torch.from_numpy(item.view[None]).float()).numpy()[0])
    torch_BC = np.stack(expected)
    difference = float(np.abs(np.stack(answers) - torch_BC).max())
    bound = TOLERANCE * max(1.0, float(np.abs(torch_BC).max()))
    # So that NaN is refused too, which is not above any bound.
    if not difference <= bound:
        cure = "Report it with the versions of torch, onnxscript and onnxruntime"
        condition = f"at most {bound:.2g} from torch's on {len(torch_BC)} images"
        raise errors.NumericsError.for_value(NAME, OUTPUT, condition, f"{difference:.3g}", cure)
    return ExportCheck(len(torch_BC), difference)


def _drop_metadata(graph: Any) -> None:  # onnx, an optional extra, has its type
    """Drop the exporter's notes on the code: they hold paths of this machine, on which no byte may depend."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
