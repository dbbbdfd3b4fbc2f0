SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

VENV ?= .venv
# Not `PYTHON`: that one chooses the interpreter the environment is made with.
RUN := $(VENV)/bin/python -m
# Each worker has servers of its own; more than four would wait for the disk.
PYTEST := $(RUN) pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal
PIP := $(RUN) pip install -qq --disable-pip-version-check
# As pip does for a package that is not editable: also where Python is told to write no bytecode.
COMPILE := $(RUN) compileall -q src

.PHONY: help demo test check bench bench-check format clean servers mutants soak soak-pool soak-coherence model

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: $(VENV)/.demo  ## Run the tour: three tiers, a commit that invalidates, spans; no server needed
	@$(RUN) tiercache demo

test: $(VENV)/.dev servers  ## Run every test on private servers; ARGS="-k name" chooses
	@$(PYTEST) $(ARGS)

check: $(VENV)/.dev servers  ## Run what CI runs: format, lint, types, import contracts, tests
	@$(RUN) ruff format --quiet --check . || { echo "Run: make format" >&2; exit 1; }
	@$(RUN) ruff check --quiet .
	@$(RUN) mypy
	@test ! -d tests/typing || $(RUN) mypy tests/typing
	@test ! -d tests/typing || $(RUN) pyright --pythonpath $(VENV)/bin/python
	@$(VENV)/bin/lint-imports --no-logo
	@$(PYTEST)

mutants: $(VENV)/.dev servers  ## Take out one mechanism at a time and see its tests fail; ARGS="--only name"
	@$(RUN) tests.mutants.run $(ARGS)

soak: soak-pool soak-coherence  ## Check every outcome and every read through minutes of faults and kills; SECONDS=n for each

soak-pool: $(VENV)/.dev servers
	@$(RUN) tests.soak.pool --seconds $(or $(SECONDS),300) $(ARGS)

soak-coherence: $(VENV)/.dev servers
	@$(RUN) tests.coherence.soak --seconds $(or $(SECONDS),600) $(ARGS)

model: $(VENV)/.dev  ## Explore the coherence protocol, step by step and with each part taken out
	@$(RUN) tests.coherence.model $(ARGS)

bench: $(VENV)/.bench servers  ## Measure against the rivals, in the same run
	@$(RUN) benchmarks $(ARGS)

bench-check: $(VENV)/.bench servers  ## Measure, and say what got slower than 1.1 times the baseline
	@$(RUN) benchmarks --check $(ARGS)

format: $(VENV)/.dev  ## Put the code in the form that `make check` asks for
	@$(RUN) ruff check --quiet --fix --exit-zero .
	@$(RUN) ruff format --quiet .

clean:  ## Remove the environments and whatever was made
	@rm -rf .venv .venv-ci build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

servers:
	@.ci/servers

$(VENV)/bin/python:
	@.ci/venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	@echo "Installing tiercache into $(VENV) ..." >&2
	@$(PIP) --editable '.[demo]'
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing tiercache and its tools into $(VENV) ..." >&2
	@$(PIP) --editable . --group dev
	@$(COMPILE)
	@touch $@ $(VENV)/.demo

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	@echo "Installing tiercache and its rivals into $(VENV) ..." >&2
	@$(PIP) --editable . --group test --group bench
	@touch $@ $(VENV)/.demo
