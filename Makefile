# Two commands matter to a newcomer: `make demo` and `make test`. Both set up what they need.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JUDGES := .venv-judges
JUDGES_STAMP := $(JUDGES)/.installed
JUDGES_JS := tests/judges/agents_js
JUDGES_JS_STAMP := $(JUDGES_JS)/node_modules/.installed

.PHONY: help setup demo test check lint types judges browser database unit cluster chaos fuzz lock clean

help:
	@echo "make demo      one phone call, end to end, on this machine"
	@echo "make test      linter, type checker, all tests"
	@echo "make check     linter and type checker only"
	@echo "make unit      the tests that start no Ray"
	@echo "make cluster   the tests that start Ray"
	@echo "make chaos     live calls while everything beneath them is broken; NIGHT=1 for an hour"
	@echo "make fuzz      the property tests with many new examples"
	@echo "make lock      resolve requirements.lock anew"

setup: $(STAMP)

# The stamp makes a second call free. Byte-compiling matters: a worker without compiled modules starts three times slower,
# and container images often forbid Python to write them later. It is done on all cores, which pip does not.
$(STAMP): pyproject.toml requirements.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q -j 0 $(VENV)/lib orchestrator actors || true
	touch $(STAMP)

# The official clients that the tests run as judges have an environment of their own, and so do their pins.
$(JUDGES_STAMP): tests/judges/requirements.lock
	test -x $(JUDGES)/bin/python || $(PYTHON) -m venv $(JUDGES)
	$(JUDGES)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r tests/judges/requirements.lock
	touch $(JUDGES_STAMP)

$(JUDGES_JS_STAMP): $(JUDGES_JS)/package.json $(JUDGES_JS)/package-lock.json | $(STAMP)
	$(BIN)/python $(JUDGES_JS)/npm.py ci
	touch $(JUDGES_JS_STAMP)

judges: $(JUDGES_STAMP) $(JUDGES_JS_STAMP)

# The page of examples/web is tested in a real browser, the distribution's own. No stamp: looking is as quick, and always right.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { \
	    command -v apt-get >/dev/null || { echo "The tests need Chromium: install it so that 'chromium' is on the PATH." >&2; exit 1; }; \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	    $$sudo apt-get update --quiet && $$sudo apt-get install --yes --quiet --no-install-recommends chromium || { \
	        echo "Chromium could not be installed: install it so that 'chromium' is on the PATH, then go on." >&2; exit 1; }; \
	}

# The journal's tests start a PostgreSQL server of their own, from the distribution's programs; its service is not needed.
database:
	@command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { \
	    command -v apt-get >/dev/null || { echo "The tests need PostgreSQL: install its server programs." >&2; exit 1; }; \
	    sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	    $$sudo apt-get update --quiet && $$sudo apt-get install --yes --quiet --no-install-recommends postgresql || { \
	        echo "PostgreSQL could not be installed: install its server programs, then go on." >&2; exit 1; }; \
	}

demo: setup
	$(BIN)/orchestrator demo

test: check unit cluster

check: lint types

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup judges browser database
	$(BIN)/pytest -m "not cluster"

cluster: setup
	$(BIN)/pytest -m cluster

# Live calls on a real deployment while its processes, models and store are broken in random order. CHAOS takes options, such as
# CHAOS="--seed 1 --only gateway", see docs/tasks.md.
chaos: setup database
	$(BIN)/python -m tests.chaos $(CHAOS)

# New random examples for every property, some minutes; what it finds is kept in .hypothesis/ and tried first next time.
fuzz: setup
	HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -m "hypothesis and not cluster" --timeout 900

lock:
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --no-header --quiet --output-file requirements.lock
	$(BIN)/uv pip compile --group pyproject.toml:judges --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --no-header --quiet --output-file tests/judges/requirements.lock
	$(BIN)/python $(JUDGES_JS)/npm.py lock

clean:
	rm -rf $(VENV) $(JUDGES) $(JUDGES_JS)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
