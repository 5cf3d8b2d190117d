# Each target sets up what it needs: a virtual environment, the packages, the model.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all bench lint types build clean

demo: .venv/ready
	$(BIN)/jaxheads study --out runs/demo

test: .venv/ready
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-all: .venv/ready
	$(BIN)/python -m pytest -n 2

bench: .venv/ready
	$(BIN)/python benchmarks/run.py

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/pyright

build: .venv/ready
	rm -rf dist
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf .venv dist .pytest_cache .ruff_cache

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'jaxheads needs Python 3.11 or newer: make PYTHON=python3.12 ...' >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[report,parquet]' --group dev
	touch $@
