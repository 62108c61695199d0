import importlib.util
import sys
from pathlib import Path

# What is handed over is what the stages leave: the report's small run of all of them serves here too.
_spec = importlib.util.spec_from_file_location("report_conftest", Path(__file__).parents[2] / "report/conftest.py")
_module = importlib.util.module_from_spec(_spec)
sys.modules["report_conftest"] = _module
_spec.loader.exec_module(_module)
World, whole, bare, copied = _module.World, _module.whole, _module.bare, _module.copied
