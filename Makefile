# The README's two commands are `make demo` and `make test`; both make .venv on a machine that has only Python with venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Stages are run as plain `python`: the environment's must come first.
export PATH := $(abspath $(BIN)):$(PATH)
# No network at run time: weights come from files, and nothing reports home.
export HF_HUB_OFFLINE ?= 1
export DVC_NO_ANALYTICS ?= 1

.PHONY: demo test system check nightly check-params lint docs fuzz bench golden clean
# DVC writes two files in place: a kill -9 at that moment leaves them empty or cut, and it refuses to go on. What dvc.lock
# held is in DVC's run cache too; the other one tells which of its processes are running now.
define MEND
import json, pathlib, subprocess, voluptuous, yaml
from dvc import schema
lock, running = pathlib.Path("dvc.lock"), pathlib.Path(".dvc/tmp/rwlock")
damaged = "is damaged, since DVC was killed while it wrote it."
try:
    schema.COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(lock.read_text("utf-8"))) if lock.exists() else None
except (yaml.YAMLError, UnicodeDecodeError, voluptuous.Invalid):
    print(f"dvc.lock: {damaged} Made again from what DVC keeps")
    if subprocess.run(["git", "checkout", "-q", "HEAD", "--", "dvc.lock"], stderr=subprocess.DEVNULL).returncode:
        lock.unlink()
try:
    json.loads(running.read_text("utf-8")) if running.exists() else None
except ValueError:
    print(f"{running}: {damaged} Removed")
    running.unlink()
endef
export MEND
define KEEP
Keep these results, so that later runs are compared with them:
  git add dvc.lock metrics && git commit -m "First results"
dvc.lock says which files of DVC's cache they are, and metrics/ holds what dvc metrics diff and dvc exp show compare.
endef
export KEEP

demo: $(VENV)/installed
	@python -c "$$MEND"
	dvc repro
	@python -m stages.report --show artifacts/report/summary.json --costs artifacts/costs
	@echo "$$KEEP"

PYTEST := python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# Two workers share the cores: threads of theirs would wait for one another.
test: export OMP_NUM_THREADS ?= 1
test: $(VENV)/installed
	$(PYTEST) -m "not system and not nightly"

# Whole pipelines, clusters and ranks, each of them once.
system: export OMP_NUM_THREADS ?= 1
system: $(VENV)/installed
	$(PYTEST) -m "system and not nightly"

# What CI runs: both of them, and whatever the linters say.
check: export OMP_NUM_THREADS ?= 1
check: lint
	$(PYTEST) -m "not nightly"

# Everything, with 500 random changes where `make test` makes 30.
nightly: export TEACHONCE_FUZZ ?= 500
nightly: export OMP_NUM_THREADS ?= 1
nightly: lint
	$(PYTEST)
	python tests/kills.py

# Whether params.yaml and all that it names fit together, in a second: what `dvc repro` does first.
check-params: $(VENV)/installed
	@teachonce check

lint: $(VENV)/installed
	ruff check .
	ruff format --check .
	mypy
	python tests/structure.py

# docs/configuration.md and the schemas that editors use, from the classes that read the configurations.
docs: $(VENV)/installed
	python -m teachonce.tools.reference.reference_command

# 500 random changes of every kind of file, where the tests make 30.
fuzz: export TEACHONCE_FUZZ ?= 500
fuzz: export OMP_NUM_THREADS ?= 1
fuzz: $(VENV)/installed
	python -m pytest -s $$(find tests -name 'test_fuzz*.py')

bench: $(VENV)/installed
	@for file in tests/bench/bench_*.py; do echo "== $$file"; python $$file || exit 1; done

# Remake what the golden tests compare with; only after a deliberate change of format or views.
golden: $(VENV)/installed
	@for file in tests/golden/make_*.py; do echo "== $$file"; python $$file || exit 1; done

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) .teachonce artifacts
