# Each target sets up what it needs: a virtual environment, the packages, the model.
PYTHON ?= python3
BIN := .venv/bin
PARITY := .venv-parity/bin
DOCS := .venv-docs/bin

.PHONY: demo test test-all trust trust-fuzz parity goldens bench bench-sweeps bench-transformers bench-load bench-training lint types build docs clean

demo: .venv/ready
	$(BIN)/jaxheads study --out runs/demo

# The first run compiles; later ones read what it left in .pytest_cache/compiled.
test: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not parity"

test-all: .venv/ready
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not parity"

# Kills every command at random moments; fewer or others: make trust TRUST='--count 50 --seed 3'
trust: .venv/ready
	$(BIN)/python tests/trust/kills.py $(TRUST)

# Broken files for every reader; fewer or others: make trust-fuzz FUZZ='--count 500 --seed 3'
trust-fuzz: .venv/ready
	$(BIN)/python tests/trust/fuzz.py $(FUZZ)

parity: .venv-parity/ready
	$(PARITY)/python -m pytest -n 2 --dist loadgroup tests/parity

goldens: .venv-parity/ready
	PYTHONPATH=tests $(PARITY)/python tests/parity/make_goldens.py

bench: .venv/ready
	$(BIN)/python benchmarks/run.py

bench-sweeps: .venv/ready
	$(BIN)/python benchmarks/sweeps.py

bench-transformers: .venv-parity/ready
	$(PARITY)/python benchmarks/against_transformers.py

bench-load: .venv/ready
	$(BIN)/python benchmarks/load.py

bench-training: .venv/ready
	$(BIN)/python benchmarks/training.py

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/pyright

build: .venv/ready
	rm -rf dist
	$(BIN)/python -m build --outdir dist

docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/mkdocs build --strict

clean:
	rm -rf .venv .venv-parity .venv-docs dist site .pytest_cache .ruff_cache

# torch and transformers stand apart: the package and its other tests never see them.
.venv/ready: PACKAGES := --editable '.[report,parquet]' --group dev
.venv-parity/ready: PACKAGES := --editable . --group parity
# The site reads the sources and runs none of them.
.venv-docs/ready: PACKAGES := --group docs

%/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'jaxheads needs Python 3.11 or newer: make PYTHON=python3.12 ...' >&2; exit 2; }
	$(PYTHON) -m venv $*
	$*/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$*/bin/python -m pip install --quiet $(PACKAGES)
	touch $@
