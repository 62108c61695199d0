"""Stages of dvc.yaml: they run the package of the checkout that they stand in, wherever the environment points.

DVC runs queued experiments in copies of the repository; an editable install names the original.
"""

import os
import sys
from pathlib import Path

_SOURCES = str(Path(__file__).parents[1] / "pipeline")
sys.path.insert(0, _SOURCES)
# For the processes that a stage starts.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (_SOURCES, os.environ.get("PYTHONPATH"))))
