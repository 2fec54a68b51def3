# Each target does all its set-up and then its job. Override with `make test PYTHON=python3.12`
# or `make test VENV=/some/where`.
PYTHON ?= python3
VENV ?= .venv

python := $(VENV)/bin/python
run_ready := $(VENV)/.installed-test
dev_ready := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test bench chaos lint typecheck clean

help:
	@echo "make demo       resynthesise examples/ into demo_output/ with a report"
	@echo "make test       run the tests that need no GPU, and the examples in the docstrings"
	@echo "make lint       check style, format and types"
	@echo "make bench      run the benchmarks that need no data of their own"
	@echo "make chaos      kill and interrupt batches on Ray, 20 times, and look for damage"
	@echo "make clean      delete demo_output/ and the caches"

demo: $(run_ready)
	$(python) -m pipelines.batch_transform examples/ --output-dir demo_output
	@echo "Open the report: $(CURDIR)/demo_output/report.html"

test: $(run_ready)
	$(python) -m pytest -q -m "not gpu" -n auto --maxprocesses 4 --dist loadgroup

bench: $(run_ready)
	$(python) -m pytest -q -s -o python_files="bench_*.py" -o python_functions="bench_*" \
	    -o timeout=0 tests/benchmarks

chaos: $(run_ready)
	$(python) -m tests.chaos.rounds 20

lint: $(dev_ready)
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy

typecheck: $(dev_ready)
	$(python) -m mypy

clean:
	rm -rf demo_output .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps make a second call install nothing; a changed pyproject.toml installs again.
$(run_ready): pyproject.toml | $(VENV)/bin/pip
	@echo "Installing audiovae into $(VENV): once, a few minutes and 7 GB with CUDA libraries"
	$(python) -m pip install --editable ".[test]"
	@touch $@

$(dev_ready): pyproject.toml | $(VENV)/bin/pip
	@echo "Installing audiovae and its development tools into $(VENV): once"
	$(python) -m pip install --editable ".[dev]"
	@touch $@ $(run_ready)

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "audiovae needs Python 3.11 or newer, but '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>&1 || true);" \
	        "install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
