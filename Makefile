# Each target sets up its own .venv on first use: a machine with Python >= 3.11 needs nothing else.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

# Tests start thousands of processes, and each would compile Shoal's modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help venv train test test-system test-all gpu-check check bench docs reference clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

venv: .venv/for-tests  ## make .venv with Shoal and everything its tests need

INSTALL = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable

.venv/for-runs: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Shoal needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[local]'
	touch $@

.venv/for-tests: .venv/for-runs
	$(INSTALL) '.[dev]'
	touch $@

.venv/for-docs: .venv/for-runs
	$(INSTALL) '.[docs]'
	touch $@

train: .venv/for-runs  ## train simple_spread for five minutes with two actors, then evaluate it (ARGS="--time 20m")
	$(BIN)/shoal train simple_spread $(ARGS)

# They wait more than they compute, above all tests of several processes. Alone: ARGS="-n 0".
SIDE_BY_SIDE = --dist worksteal --numprocesses

test: venv  ## the quick tests: four minutes on two cores (ARGS="-k ring")
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) 2 -m "not system and not learning and not soak and not gpu" $(ARGS)

# The files that have such tests: to import all others would take longer than many a test.
SYSTEM_FILES = $(shell grep --recursive --files-with-matches --include='test_*.py' pytest.mark.system tests)

test-system: venv  ## real processes that are killed, cut off and starved; ten minutes on two cores
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) 3 -m "system and not engine and not soak and not learning and not gpu" $(or $(ARGS),$(SYSTEM_FILES))

test-all: venv  ## all tests: also real processes that are killed, runs that learn, soaks
	$(BIN)/python -m pytest $(ARGS)

gpu-check: venv  ## tests and speeds of a GPU: under eight minutes; needs CUDA; writes build/gpu-check.json
	$(BIN)/python -m tests.gpu.check

check: venv  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/for-runs  ## the table of speeds (ARGS="worlds", ARGS="--json")
	$(BIN)/shoal bench $(ARGS)

docs: .venv/for-docs  ## build the site into build/site; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env -b html -c docs . build/site

reference: .venv/for-runs  ## write docs/reference anew from the code
	$(BIN)/python -m shoal.commands.reference

clean:  ## remove .venv and caches; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
