"""Stages of dvc.yaml: they run the package of the checkout that they stand in, wherever the environment points.

DVC runs queued experiments in copies of the repository; an editable install names the original.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
