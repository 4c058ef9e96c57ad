# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One pinned torch for development and tests; users may have any that pyproject.toml admits.
TORCH := torch==2.13.0
READY := $(VENV)/.ready
# What Python has compiled is kept: the tests alone start some hundred interpreters.
unexport PYTHONDONTWRITEBYTECODE
# Most tests wait for processes and clocks: three of them share a core.
TESTERS := $(shell echo $$(( $$(getconf _NPROCESSORS_ONLN) * 3 )))

.DEFAULT_GOAL := help
.PHONY: help demo test lowest lint style types pages format docs bench bench-full sim golden drill containers clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A new pip needs half of the CPU time of the one that comes with Python.
# To compile all of it takes nearly as long as to install it, and most of it is never imported.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile "$(TORCH)" --editable ".[torch,embedded,dashboard,frames,metrics,tpe,pb2,docs,dev]"
	@touch $@

demo: $(READY) ## Train a population on handwritten digits (about two minutes).
	$(BIN)/romul demo

# One thread a process: threads that torch would give each of them wait for one another on few cores.
test: $(READY) ## Run all tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist worksteal

# Lower bounds that no test has seen are guesses. Old packages use what newer ones deprecate.
lowest: ## Run all tests with the oldest packages that pyproject.toml admits.
	$(PYTHON) -m venv build/lowest
	build/lowest/bin/pip install --quiet --disable-pip-version-check uv
	build/lowest/bin/uv pip install --quiet --python build/lowest --resolution lowest-direct "$(TORCH)" --editable ".[torch,embedded,dashboard,frames,metrics,s3,tpe,pb2,uvloop]"
	build/lowest/bin/uv pip install --quiet --python build/lowest --editable ".[dev]"
	OMP_NUM_THREADS=1 build/lowest/bin/python -m pytest -n $(TESTERS) --dist worksteal -W ignore::DeprecationWarning

lint: style types pages ## Check style, types, import walls and the documentation.

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

pages: $(READY)
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet docs build/docs

docs: $(READY) ## Build the documentation site in build/docs.
	$(BIN)/sphinx-build --fail-on-warning --keep-going docs build/docs
	@echo "build/docs/index.html"

format: $(READY) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Measure everything in about ten minutes; one table, each figure beside its goal.
	$(BIN)/python benchmarks/table.py

bench-full: $(READY) ## The same with all rounds; writes docs/performance.md.
	$(BIN)/python benchmarks/table.py --full --page docs/performance.md

sim: $(READY) ## Simulate a population on machines that come and go.
	$(BIN)/romul sim

golden: $(READY) ## Has a decision moved? BASE=commit: since then; RENEW=1: write the file again.
	$(BIN)/python -m tests.golden.compare $(if $(BASE),--base $(BASE)) $(if $(RENEW),--renew)

drill: $(READY) ## Break everything on purpose, three hundred times, and audit what is left.
	$(BIN)/romul drill --faults 300

containers: ## Run the compose stack, and break it; the images must be there (docs/deploy.md).
	docker/check

clean: ## Remove what the other targets made.
	rm -rf $(VENV) .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache runs
