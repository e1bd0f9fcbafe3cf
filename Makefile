# Each target sets up its own .venv on first use: a machine with Python >= 3.11 needs nothing else.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: help venv train test test-all check bench docs reference clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

venv: .venv/installed  ## make .venv with Shoal and everything its tests need

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Shoal needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

train: venv  ## train simple_spread for five minutes with two actors, then evaluate it (ARGS="--time 20m")
	$(BIN)/shoal train simple_spread $(ARGS)

test: venv  ## the quick tests: under five minutes on two cores (ARGS="-k ring")
	$(BIN)/python -m pytest -m "not system and not learning and not soak" $(ARGS)

test-all: venv  ## all tests: also real processes that are killed, runs that learn, soaks
	$(BIN)/python -m pytest $(ARGS)

check: venv  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: venv  ## the table of speeds (ARGS="worlds", ARGS="--json")
	$(BIN)/shoal bench $(ARGS)

docs: .venv/docs-installed  ## build the site into build/site; a warning is an error
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --fresh-env -b html -c docs . build/site

.venv/docs-installed: .venv/installed
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

reference: venv  ## write docs/reference anew from the code
	$(BIN)/python -m deploy.reference

clean:  ## remove .venv and caches; runs stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
