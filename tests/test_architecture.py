"""The structure's promises: deps are the import closure, imports point down, teacher and student are strangers."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from teachonce.core import import_closure

ROOT = Path(__file__).parents[1]
LAYERS = {
    "core": 0,
    "shards": 1,
    "views": 1,
    "format": 2,
    "prepare": 2,
    "store": 3,
    "teacher": 3,
    "cache": 4,
    "student": 4,
    "audit": 5,
    "check": 5,
    "evaluate": 5,
    "report": 6,
    "tools": 7,
    "cli": 8,
    "__main__": 9,
}
STRANGERS = {
    ("student", "teacher"),
    ("student", "cache"),
    ("evaluate", "teacher"),
    ("evaluate", "cache"),
    ("audit", "cache"),
}
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
BODIES = {name: stage.get("do", stage) for name, stage in STAGES.items()}
PACKAGE = import_closure.ROOT / "teachonce"


def sources() -> list[Path]:
    return [path for folder in (PACKAGE, ROOT / "stages") for path in folder.rglob("*.py")]


def room(module: str) -> str:
    """Of a module's path below the source root."""
    return module.split("/")[1].removesuffix(".py")


def reached(stage: str) -> set[str]:
    """Modules of the package that run when a stage runs, by their paths below the source root."""
    start = str(ROOT / f"stages/{stage}.py")
    return set(import_closure.module_files(start)) - {start}


@pytest.mark.parametrize("name", BODIES)
def test_code_deps_are_the_folders_of_the_import_closure(name):
    stage = BODIES[name]
    entry = re.search(r"python -m stages\.(\w+)", stage["cmd"])
    assert entry, f"{name}: cmd does not run a module of stages/"
    declared = {dep for dep in stage["deps"] if dep.startswith(("pipeline/", "stages/"))}
    wanted = {"stages/__init__.py", f"stages/{entry[1]}.py"}
    wanted |= {f"pipeline/teachonce/{room(module)}" for module in reached(entry[1])}
    assert declared == wanted, f"missing {sorted(wanted - declared)}, needless {sorted(declared - wanted)}"


def test_a_template_lies_where_the_stage_that_renders_it_looks():
    templates = [path for path in PACKAGE.rglob("*.jinja") if path.parent.name in BODIES]
    assert templates
    for path in templates:
        assert path.parent.relative_to(ROOT).as_posix() in BODIES[path.parent.name]["deps"], f"{path} is in no dep"


def test_imports_point_down_the_layers():
    for path in PACKAGE.rglob("*.py"):
        importer = room(path.relative_to(import_closure.ROOT).as_posix())
        for other in import_closure.direct_imports(path.relative_to(import_closure.ROOT).as_posix()):
            imported = room(other)
            assert imported == importer or LAYERS[imported] < LAYERS[importer], (
                f"{path.name}: {importer} imports {imported}"
            )
            assert (importer, imported) not in STRANGERS, f"{path.name}: {importer} imports {imported}"


def test_no_two_modules_have_one_name():
    """So that no import needs another name for what it imports."""
    names = Counter(path.stem for path in PACKAGE.rglob("*.py") if path.stem != "__init__")
    assert [name for name, count in names.items() if count > 1] == []


COMMANDS = [path.relative_to(import_closure.ROOT).as_posix() for path in PACKAGE.rglob("*_command.py")]
FORBIDDEN = {
    "prepare": {"views", "format", "store", "teacher", "student"},
    "teacher": {"student", "cache", "store"},
    "cache": {"student"},
    "audit": {"student", "cache"},
    "train": {"teacher", "cache"},
    "evaluate": {"teacher", "cache"},
    "report": {"teacher", "cache", "student"},
    "inspect": {"teacher", "cache", "student"},
    "export": {"teacher", "cache"},
    "compare": {"teacher", "cache", "student"},
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_command_cannot_reach_what_it_must_not(name):
    (command,) = [module for module in COMMANDS if module.endswith(f"/{name}_command.py")]
    assert not {room(module) for module in import_closure.module_files(command)} & FORBIDDEN[name]


@pytest.mark.parametrize("name", BODIES)
def test_no_stage_runs_a_tool(name):
    (entry,) = re.findall(r"python -m stages\.(\w+)", BODIES[name]["cmd"])
    assert not {room(module) for module in reached(entry)} & {"tools", "cli"}


LIGHT = (
    *("check/check_command", "tools/inspect/inspect_command", "report/report_command", "audit/audit_command"),
    "tools/compare/compare_command",
)


@pytest.mark.parametrize("module", [*LIGHT, "views/mixing", "shards/sample_reader", "store/compatibility"])
def test_what_starts_without_torch(module):
    names = "('torch', 'timm', 'webdataset', 'zarr', 'dask', 'torchvision')"
    code = f"import sys, teachonce.{module.replace('/', '.')}; print([name for name in {names} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize("name", BODIES)
def test_every_path_of_a_cmd_is_declared(name):
    stage = BODIES[name]
    declared = [dep for dep in stage["deps"] if not dep.startswith(("pipeline/", "stages/"))]
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
    parameters = {"item", "key", "scratch", *yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))}
    text = (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    for field in re.findall(r"\$\{([^}]*)\}", text):
        assert field.split(".")[0] in parameters, field


def test_no_parameter_has_the_name_of_a_dependency():
    """`dvc exp show --drop` and `--keep` fail where two columns have one name."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    deps = {dep.replace("${source}", params["source"]) for body in BODIES.values() for dep in body["deps"]}
    assert not deps & {*params, *(f"students.{name}" for name in params["students"])}


def test_the_graph_is_read_on_a_few_screens():
    lines = (ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 245
    assert max(map(len, lines)) <= 120


def test_package_files_are_empty():
    for path in PACKAGE.rglob("__init__.py"):
        assert path.read_bytes() == b"", path


def test_modules_stay_small_and_have_real_names():
    for path in sources():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path
        assert path.stem not in {"utils", "util", "common", "helpers", "misc"}, path


def test_library_code_neither_prints_nor_asserts():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}"
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            assert not called, f"{path}:{getattr(node, 'lineno', 0)}"


def test_every_config_is_read_alike_by_both_yaml_versions_and_has_a_header():
    from teachonce.core import config

    paths = [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*/*.yaml"))]
    assert len(paths) > 5
    for path in paths:
        config.read(path)
        assert path.read_text(encoding="utf-8").startswith("# "), f"{path}: no header"


def test_every_config_is_valid():
    from teachonce.cache.cache_config import CacheConfig
    from teachonce.core import config
    from teachonce.prepare import dataset_config
    from teachonce.student.student_spec import read_spec
    from teachonce.student.train_config import TrainConfig
    from teachonce.teacher.teacher_config import TeacherConfig
    from teachonce.views.views_config import ViewsConfig

    models = {"views": ViewsConfig, "teacher": TeacherConfig, "cache": CacheConfig, "student": TrainConfig}
    for group, model in models.items():
        for path in (ROOT / "configs" / group).glob("*.yaml"):
            config.load(path, model)
    for path in (ROOT / "configs" / "dataset").glob("*.yaml"):
        dataset_config.load(path)
    for name in yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["students"]:
        read_spec(ROOT / "params.yaml", name)


def test_only_what_guards_it_replaces_a_folder():
    """A stage's output is replaced by `outputs.Output`; units, bases, and stores within a draft, are nobody else's."""
    used = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if re.search(r"\b(new|replace)_folder\(", path.read_text(encoding="utf-8"))
    }
    names = ("core/files", "core/outputs", "cache/store_writer", "cache/basis_fit")
    assert used == {f"pipeline/teachonce/{name}.py" for name in names}
