"""The structure's promises: deps are the import closure, imports point down, teacher and student are strangers."""

import ast
import re
import string
from pathlib import Path

import pytest
import yaml

from teachonce.base import closure

ROOT = Path(__file__).parents[1]
LAYERS = {
    "base": 0,
    "shards": 1,
    "prepare": 2,
    "views": 2,
    "cache": 3,
    "teacher": 4,
    "student": 4,
    "audit": 5,
    "check": 5,
    "inspect": 5,
    "live": 5,
    "estimate": 5,
    "evaluate": 5,
    "export": 6,
    "report": 6,
}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
BODIES = {name: stage.get("do", stage) for name, stage in STAGES.items()}
PACKAGES = ("pipeline", "stages")


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


@pytest.mark.parametrize("name", BODIES)
def test_code_deps_are_exactly_the_import_closure(name):
    stage = BODIES[name]
    entry = re.search(r"python -m stages\.(\w+)", stage["cmd"])
    assert entry, f"{name}: cmd does not run a module of stages/"
    declared = {dep for dep in stage["deps"] if dep.endswith(".py")}
    wanted = closure.modules(f"stages/{entry[1]}.py")
    assert declared == wanted, f"missing {sorted(wanted - declared)}, needless {sorted(declared - wanted)}"


def test_a_template_is_a_dep_of_the_stage_that_renders_it():
    templates = [path for path in (ROOT / "pipeline").rglob("*.jinja") if path.parent.name in BODIES]
    assert templates
    for path in templates:
        name = path.relative_to(ROOT).as_posix()
        assert name in BODIES[path.parent.name]["deps"], f"{name} is no dep"


def test_imports_point_down_the_layers():
    for path in (ROOT / "pipeline").rglob("*.py"):
        here = path.relative_to(ROOT / "pipeline").parts[0]
        for other in closure.imports(path.relative_to(ROOT).as_posix()):
            there = Path(other).parts[1]
            assert there == here or LAYERS[there] < LAYERS[here], f"{path.name}: {here} imports {there}"


@pytest.mark.parametrize(("stage", "forbidden"), [
    ("train", "pipeline/teacher"), ("evaluate", "pipeline/teacher"), ("report", "pipeline/teacher"),
    ("prepare", "pipeline/views"), ("teacher", "pipeline/student"), ("cache", "pipeline/student"),
    ("audit", "pipeline/student"), ("inspect", "pipeline/teacher"), ("inspect", "pipeline/student"),
    ("export", "pipeline/teacher"),
])  # fmt: skip
def test_a_stage_cannot_reach_what_it_must_not(stage, forbidden):
    reached = closure.modules(f"stages/{stage}.py")
    assert not [file for file in reached if file.startswith(forbidden)]


@pytest.mark.parametrize("name", BODIES)
def test_every_path_of_a_cmd_is_declared(name):
    stage = BODIES[name]
    declared = [dep for dep in stage["deps"] if not dep.endswith(".py")]
    for kind in ("params", "outs", "metrics", "plots"):
        # A parameter without a file is one of params.yaml.
        plain = "params.yaml" if kind == "params" else None
        declared += [next(iter(item)) if isinstance(item, dict) else plain or item for item in stage.get(kind, [])]
    words = [word.strip("'") for word in re.findall(r"--[\w-]+\s+(\S+)", stage["cmd"])]
    # A whole folder may be named where everything read below it is declared file by file.
    paths = (word for word in words if "/" in word or word.endswith(".yaml"))
    # A check looks at what later stages leave, and depends on none of it.
    looked_at = {"artifacts/shards", "artifacts/students"} if name.startswith("check") else set()
    for word in (path for path in paths if not path.startswith("${scratch}/") and path not in looked_at):
        covered = any(word == path or path.startswith(f"{word}/") or word.startswith(f"{path}/") for path in declared)
        assert covered, f"{name}: {word} is neither a dep, a param nor an output"


@pytest.mark.parametrize("name", BODIES)
def test_no_value_of_params_reaches_a_shell_but_the_name_of_a_student_in_quotes(name):
    cmd = BODIES[name]["cmd"].replace("${scratch}", "")
    bare = re.sub(r"'[\w/.]*\$\{key\}[\w/.]*'", "", cmd)
    assert "$" not in bare
    assert "'" not in bare


def test_templates_use_only_known_parameters():
    known = {"item", "key", "scratch", *yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))}
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for _, field, _, _ in string.Formatter().parse(text.replace("{{", "").replace("}}", "").replace("${", "{")):
        assert field is None or field.split(".")[0] in known, field


def test_package_files_are_empty():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            assert path.read_bytes() == b"", path


def test_modules_stay_small_and_have_real_names():
    for path in sources():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}, path


def test_library_code_neither_prints_nor_asserts():
    for path in (ROOT / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not called, f"{path}:{getattr(node, 'lineno', 0)}"


def test_every_config_is_read_alike_by_both_yaml_versions_and_has_a_header():
    from teachonce.base import config

    paths = [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*/*.yaml"))]
    assert len(paths) > 5
    for path in paths:
        config.read(path)
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path}: no header"


def test_every_config_is_valid():
    from teachonce.base import config
    from teachonce.cache.config import CacheConfig
    from teachonce.prepare import config as prepare_config
    from teachonce.student.config import StudentConfig, student
    from teachonce.teacher.config import TeacherConfig
    from teachonce.views.config import ViewsConfig

    models = {"views": ViewsConfig, "teacher": TeacherConfig, "cache": CacheConfig, "student": StudentConfig}
    for group, model in models.items():
        for path in (ROOT / "configs" / group).glob("*.yaml"):
            config.load(path, model)
    for path in (ROOT / "configs" / "data").glob("*.yaml"):
        prepare_config.load(path)
    for name in yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["students"]:
        student(ROOT / "params.yaml", name)


def test_only_what_guards_it_replaces_a_folder():
    """A stage's output is replaced by `outputs.Output`; units, and stores within a draft, are nobody else's."""
    used = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if re.search(r"\b(new|replace)_folder\(", path.read_text(encoding="utf-8"))
    }
    assert used == {"teachonce/base/files.py", "teachonce/base/outputs.py", "teachonce/cache/write.py"}
