# Everything here works in a clean checkout: each target sets up what it needs in $(VENV) first.
PYTHON ?= python3
VENV ?= .venv
IMAGE ?= sodium_prep:$(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' sodium_prep/__init__.py)
JOBS ?= 2

# One thread per process: the same numbers on every machine, and no two processes fighting for one core.
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# A real head (Colin27) and label maps in its space, from Debian's package mricron-data; tests of it skip without.
MRICRON = .data/mricron/usr/share/mricron/templates
export MRICRON_TEMPLATES ?= $(if $(wildcard /usr/share/mricron/templates/ch2.nii.gz),/usr/share/mricron/templates,$(CURDIR)/$(MRICRON))

RUNTIME = $(VENV)/.runtime
DEVELOP = $(VENV)/.develop
BIN = $(VENV)/bin

.PHONY: help demo data test test-fast test-thorough lint format types layers docs wheel image venv clean ci

help:
	@echo "make data     a real head for the tests, from Debian's mricron-data (make test does it)"
	@echo "make demo     a phantom study with known concentrations, processed; recovered against true values"
	@echo "make test     the test suite (test-fast: without the slow ones; test-thorough: with many more heads)"
	@echo "make lint     style;  make format mends what can be mended"
	@echo "make types    static types"
	@echo "make layers   each room imports only from the rooms below"
	@echo "make docs     documentation, to docs/_build/html"
	@echo "make wheel    wheel and source distribution, to dist/"
	@echo "make image    container image $(IMAGE)"
	@echo "make venv     development environment in $(VENV)"
	@echo "make ci       all checks on a clean clone of the last commit"
	@echo "make clean    remove what these made"

demo: $(RUNTIME)
	rm -rf demo
	$(BIN)/sodium-prep-tools demo demo

test: $(DEVELOP) data
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not thorough"

test-thorough: $(DEVELOP) data
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-fast: $(DEVELOP) data
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not thorough"

data:
	@test -f $(MRICRON_TEMPLATES)/ch2.nii.gz || { mkdir -p .data && cd .data && rm -rf mricron *.deb \
	  && apt-get download -qq mricron-data 2>/dev/null && dpkg-deb -x mricron-data_*.deb mricron && rm -f *.deb; } \
	  || echo "mricron-data cannot be had here (it needs apt): tests on a real head are skipped"

lint: $(DEVELOP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEVELOP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEVELOP)
	$(BIN)/mypy sodium_prep

layers: $(DEVELOP)
	$(BIN)/lint-imports

docs: $(DEVELOP)
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

wheel: $(DEVELOP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

image:
	docker build --tag $(IMAGE) .

venv: $(DEVELOP)

# The virtual environment, the app in it, and the tools of development on top. The stamps say what is there already.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  || { echo "Python 3.11, 3.12 or 3.13 is needed: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "This Python has no venv. On Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet -e .
	@touch $@

$(DEVELOP): $(RUNTIME)
	$(BIN)/pip install --quiet -e ".[dev,docs]"
	@touch $@

clean:
	rm -rf .data build dist demo docs/_build docs/api .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

ci:
	.ci/run
