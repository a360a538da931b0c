# `make run` and `make test` do all the set-up on a fresh machine with Python >= 3.11; `make help` lists the rest.
.DEFAULT_GOAL := help
.PHONY: help setup run test test-all lint format types lock clean

VENV ?= .venv
BIN := $(VENV)/bin
# The main job; `make run JOB="--methods clip npc --noise 0.4"` runs another one.
JOB ?= --methods hana npc --noise 0.2 0.4 0.6 0.8
# Test processes, and one thread in each: more threads than cores only slow such small models down.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -p no:cacheprovider -n $(WORKERS) --dist loadfile
FIND_PYTHON = for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$candidate && break; done
FOLDERS := methods datasets protocols results analysis

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-9s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## create .venv from requirements.lock and install the project into it

$(VENV)/.installed: requirements.lock pyproject.toml
	@python=$$($(FIND_PYTHON)); \
	if [ -z "$$python" ]; then echo "no Python >= 3.11 found; install one or say: make PYTHON=/path/to/python3" >&2; exit 2; fi; \
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $$python -m venv --clear $(VENV)
	@echo "Installing requirements.lock into $(VENV); the first time takes minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: setup ## the main job: train what is missing, print the table
	$(BIN)/python run_benchmark.py $(JOB)

test: setup ## the tests, without the slow ones
	$(PYTEST) -m "not slow"

test-all: setup ## every test; takes many minutes
	$(PYTEST)

lint: setup types ## ruff and mypy
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: setup ## let ruff put the code in shape
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

# mypy reads names off paths: here the five folders lie where their import names say.
types:
	@mkdir -p build/types/nocobench
	@for folder in $(FOLDERS); do ln -sfn ../../../$$folder build/types/nocobench/$$folder; done
	@ln -sfn ../../run_benchmark.py ../../examples/stranger/trimmed_infonce.py build/types/

lock: ## write requirements.lock anew from the ranges in pyproject.toml
	@rm -rf build/lock && $$($(FIND_PYTHON)) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet '.[test,dev]'
	@grep '^#' requirements.lock > build/lock.txt
	@build/lock/bin/python -m pip freeze --all --exclude pip --exclude nocobench \
		| grep -v -E '^(nvidia-|cuda-|triton)' | sed -E 's/\+[a-z0-9.]+$$//' >> build/lock.txt
	@mv build/lock.txt requirements.lock

clean: ## remove .venv and everything generated but records
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
