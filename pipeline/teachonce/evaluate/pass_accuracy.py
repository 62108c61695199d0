"""How accurate a student was on its way: its kept weights on the same images, in the same pass over them.

Shapes: B images of a batch.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from teachonce.core import errors, sealed_files
from teachonce.evaluate import evaluation_record, heads, metrics
from teachonce.shards import index
from teachonce.student import kept_weights, student_model, student_record, student_spec

_REFUSAL = sealed_files.Refusal(errors.DataError, "Train it again: dvc repro train; or restore it: dvc checkout")


class KeptNetworks:
    """A student's networks of its way, and how many images each of them gets right."""

    def __init__(
        self,
        folder: Path,
        record: student_record.StudentRecord,
        student: student_spec.Student,
        num_classes: int,
        device: torch.device,
    ) -> None:
        """Load what the student's record names.

        Args:
            folder: the student's.
            record: of its making.
            student: its model.
            num_classes: of its heads.
            device: where they compute.

        Raises:
            DataError: a file is missing or another.
        """
        self._record = record
        self._networks: dict[int, torch.nn.Module] = {}
        # The finished student is evaluated anyway.
        for kept in record.kept_weights[:-1]:
            name, data = kept_weights.read(folder, kept, _REFUSAL)
            network = student_model.load(data, student, num_classes, folder=folder, name=name)
            self._networks[kept.passes] = network.to(device)
        self._right = dict.fromkeys(self._networks, 0)

    def add(self, images_B3HW: Tensor, label_B: npt.NDArray[np.int32]) -> None:
        """Let each of them answer a batch; by both heads where it has two."""
        is_labelled_B = label_B != index.UNLABELLED
        for passes, network in self._networks.items():
            class_BC, dist_BC = student_model.head_logits(network, images_B3HW)
            readings = heads.read(class_BC.cpu(), None if dist_BC is None else dist_BC.cpu())
            reading = readings.get("both", readings["class"])
            is_right_B = metrics.top1_class(reading.scores_BC.numpy()) == label_B
            self._right[passes] += int((is_right_B & is_labelled_B).sum())

    def curve(self, labelled: int, final_top1: float | None) -> tuple[evaluation_record.PassAccuracy, ...]:
        """Accuracy by pass, the finished student's last; empty without labels, or where nothing was kept.

        Args:
            labelled: count of images with a label.
            final_top1: share of them that the finished student gets right.
        """
        if not self._networks or not labelled or final_top1 is None:
            return ()
        shares = {passes: right / labelled for passes, right in self._right.items()}
        return tuple(
            evaluation_record.PassAccuracy(passes=kept.passes, step=kept.step, top1=shares.get(kept.passes, final_top1))
            for kept in self._record.kept_weights
        )
