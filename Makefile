# `make demo` and `make test` work on a fresh machine with Python 3.11 or newer, pip and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo serve test test-long fuzz lint audit sbom lock docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    start a service, run the digits job on it, print what it found"
	@echo "make serve   start a service on this machine: API, worker, Ray, SQLite"
	@echo "make test    everything that CI runs"
	@echo "make test-long  tests that take minutes and a storm of faults on both databases, about half an hour"
	@echo "make fuzz    a fuzzer against every route of the API, as each role, for minutes"
	@echo "make lint    format, lint, types, import rules and the compose file alone"
	@echo "make audit   known vulnerabilities of what is installed, where their list can be reached"
	@echo "make sbom    what is installed as CycloneDX, in build/sbom.json"
	@echo "make lock    what server and worker need, each with its hashes, in requirements.txt"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make setup   the virtual environment in $(VENV) that all of these use"

setup: $(STAMP)

# Debian ships venv without pip in it: then the system's pip installs one.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null \
		|| { echo "error: $(PYTHON) is not installed; name another: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: clr needs Python 3.11 or newer, " \
		"but $(PYTHON) is %d.%d; name another: make PYTHON=..." % sys.version_info[:2])'
	@echo "installing into $(VENV), the first time a few minutes"
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) > /dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -q pip; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python examples/demo.py

serve: $(STAMP)
	@$(BIN)/clr serve

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# Much of a test's time is waiting for processes: two at once, each file in one of them, one thread of torch each. Which
# lines they run is counted, with a floor.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder -p tests.covered

# Exit code 0 too where the list of vulnerabilities cannot be reached, which is then said.
audit: $(STAMP)
	@$(BIN)/python .ci/audit

# In an environment of its own: with it comes a package that adds two seconds to each import of jsonschema, and so of Ray.
sbom: $(STAMP)
	@test -x build/sbom/bin/cyclonedx-py || { $(BIN)/python -m venv --clear --without-pip build/sbom \
		&& $(BIN)/python -m pip --python build/sbom/bin/python install -q -c constraints.txt cyclonedx-bom; }
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.json $(BIN)/python

lock: $(STAMP)
	$(BIN)/python .ci/lock > requirements.txt

# What takes minutes; then faults of all kinds at random on real services, five minutes on each database, after which
# what must hold is checked.
test-long: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m long
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.storm --minutes 5 --seed 1 --database sqlite
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.storm --minutes 5 --seed 1 --database postgresql

# All phases of schemathesis, sequences of calls among them, as nobody and as the holder of a token of each role.
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m long tests/service/test_openapi.py --fuzz 100

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .schemathesis
