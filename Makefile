# Everything a contributor runs. `make help` lists it.
PYTHON ?= python3
BACKEND ?= mlir
JOBS ?= 2
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# The stamp is newer than the files that say what to install exactly when the environment is up to date.
STAMP := $(VENV)/.nldsl-installed
EXTRAS := torch,train,viz,triton,mlir,peers,examples,dev

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all lint fmt bench clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## Make .venv, or bring it up to date with pyproject.toml and constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
		|| { echo "nldsl needs Python 3.10 to 3.13; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || { echo "Creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@# torch first and pinned exactly: an open requirement may resolve to a build that brings gigabytes of GPU libraries.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: env ## Check, explain, draw, verify, train and sample HOPE on real text (BACKEND=mlir, or torch)
	$(BIN)/python -m nldsl.demo --backend $(BACKEND)

test: env ## Run the tests that take minutes (PYTEST_ARGS=... is passed on)
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow and not gpu" $(PYTEST_ARGS)

test-all: env ## Run every test
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

lint: env ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: env ## Format the Python sources and apply safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: env ## Time the compiled programs against hand-written ones (BACKEND=mlir, or torch)
	$(BIN)/python -m bench --backend $(BACKEND)

clean: ## Remove what was built, but not .venv
	rm -rf build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
