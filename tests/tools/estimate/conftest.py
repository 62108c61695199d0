import importlib.util
import sys
from pathlib import Path

# What is priced is what the cache stage makes: its small teacher and shards serve here too.
_spec = importlib.util.spec_from_file_location("teacher_conftest", Path(__file__).parents[2] / "teacher/conftest.py")
_module = importlib.util.module_from_spec(_spec)
sys.modules["teacher_conftest"] = _module
_spec.loader.exec_module(_module)
Bench, write_shards = _module.Bench, _module.write_shards
_one_thread, shards, teacher = _module._one_thread, _module.shards, _module.teacher
