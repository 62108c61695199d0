"""The student as one ONNX graph: pixels in, logits of both heads' mean out, checked against torch.

Shapes: B images, C classes, S side of the input in pixels.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from teachonce.core import errors, files
from teachonce.student import train_config

NAME = "model.onnx"
INPUT = "pixels"
OUTPUT = "logits"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4
"""Largest difference from torch's logits that is let pass, as a share of the largest logit or, below 1, of 1."""


class _PixelsToLogits(torch.nn.Module):
    """Normalisation and model as one, so that nobody who runs the graph has to know mean and standard deviation."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: torch.nn.Module, config: train_config.TrainConfig) -> None:
        super().__init__()
        self.network = network
        # Buffers become constants of the graph. Times 255: its input is levels from 0 to 255.
        for name, value in (("mean", config.mean), ("std", config.std)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1) * 255)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits float32 (B, C) of uint8 (B, 3, S, S); outside training, timm averages the two heads."""
        logits_BC: Tensor = self.network((pixels.float() - self.mean) / self.std)
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


def write_model(path: Path, network: torch.nn.Module, config: train_config.TrainConfig) -> None:
    """Write the graph; equal weights give equal bytes.

    Args:
        path: the file to write.
        network: in evaluation mode, on the CPU.
        config: size of the input in pixels, and its normalisation.
    """
    # Two images, not one: the exporter would take a batch of one for a constant.
    example = torch.zeros((2, 3, config.size, config.size), dtype=torch.uint8)
    program = torch.onnx.export(
        _PixelsToLogits(network, config).eval(),
        (example,),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: "batch"}},
    )
    if program is None:
        raise TypeError("torch's exporter gave no program")
    proto = program.model_proto
    _drop_metadata(proto.graph)
    files.write_bytes(path, proto.SerializeToString())


def compare_with_torch(
    path: Path, network: torch.nn.Module, config: train_config.TrainConfig, pixels: npt.NDArray[np.uint8]
) -> float:
    """The largest difference between the graph's logits in ONNX Runtime and torch's.

    Args:
        path: file of the graph.
        network: in evaluation mode, on the CPU.
        config: size of the input in pixels, and its normalisation.
        pixels: uint8 (B, 3, S, S), some validation images.

    Raises:
        NumericsError: it is larger than `TOLERANCE` allows, or not a number.
    """
    import onnxruntime  # noqa: PLC0415 - an optional extra

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # Two sizes of batch: neither may be frozen into the graph.
    parts = [part for part in (pixels[:1], pixels[1:]) if len(part)]
    onnx_BC = np.concatenate([session.run([OUTPUT], {INPUT: part})[0] for part in parts])
    with torch.inference_mode():
        torch_BC = _PixelsToLogits(network, config)(torch.from_numpy(pixels)).numpy()
    difference = float(np.abs(onnx_BC - torch_BC).max())
    bound = TOLERANCE * max(1.0, float(np.abs(torch_BC).max()))
    # So that NaN is refused too, which is not above any bound.
    if not difference <= bound:
        cure = "Report it with the versions of torch, onnxscript and onnxruntime"
        condition = f"at most {bound:.2g} from torch's on {len(pixels)} images"
        raise errors.NumericsError.for_value(NAME, OUTPUT, condition, f"{difference:.3g}", cure)
    return difference


def _drop_metadata(graph: Any) -> None:  # onnx, an optional extra, has its type
    """Drop the exporter's notes on the code: they hold paths of this machine, on which no byte may depend."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
