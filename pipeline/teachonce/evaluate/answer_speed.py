"""How many images a second a trained student answers, for its record of costs."""

from pathlib import Path

from teachonce.core import forward_speed, run_record
from teachonce.student import student_model, student_record, student_spec


def measure_student(student: student_spec.Student, folder: Path, classes: int) -> run_record.ForwardSpeed:
    """Time the averaged weights, both heads together, on the device that evaluates.

    Args:
        student: its entry in params.yaml and its training configuration.
        folder: of the trained student.
        classes: count of classes of its heads.
    """
    network = student_model.load(student_record.read(folder).weights, student, classes, folder=folder)
    return forward_speed.measure_forward(network.to(forward_speed.fastest_device()), student.config.size)
