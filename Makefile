# make sweep       set everything up, then train and compare both frameworks (NP=2 SUITE=quickstart)
# make test        set everything up, what the tests need as well, then run the tests, cheap ones first
# make test-long   the same with the tests that take minutes each (a nightly job)
# make style       look whether ruff would change anything, before anything is built (seconds)
# make docs        set everything up, what Sphinx needs as well, then write the documentation as HTML
# make reference   compute the published runs' reports, and the tables that documents quote, from their records
# make setup       only set up: .venv with PyTorch, TensorFlow, MPI, hvbench and a Horovod built for them
# make setup-test  only set up, what the tests need as well
# make clean       remove .venv; the built Horovod stays in the user's cache
#
# The first set-up takes about 8 minutes on 2 cores, any later one seconds. PYTHON=... chooses the interpreter, 3.11 to
# 3.13 (the tests run with 3.11); pip's own variables (PIP_INDEX_URL, ...) and HVBENCH_CACHE are honoured.

# What setup.py allows; the version that the tests run with comes first.
PYTHONS := python3.11 python3.12 python3.13 python3
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

ifndef PYTHON
PYTHON := $(shell for python in $(PYTHONS); do $$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
endif
NP ?= 2
SUITE ?= quickstart
# Tests that run at a time; most of them launch two ranks.
PROCESSES ?= 2
# What is installed with hvbench. Whoever sets up for the tests installs all at once: pip looks once for what fits together.
EXTRAS := all
test test-long docs setup-test: EXTRAS := all,test

# The checkout's path may have spaces: targets are relative to it, and commands quote it.
BIN := $(CURDIR)/.venv/bin
READY := .venv/ready
READY_TEST := .venv/ready-test
READY_STYLE := .venv/ready-style
RUFF := $(shell sed -n 's/^STYLE = \["\(.*\)"\].*/\1/p' setup.py)
PIP_INSTALL := "$(BIN)/python" -m pip install --disable-pip-version-check
# pip compiles on one core, this on all of them; a few packages bring files for other Pythons, which cannot be compiled.
COMPILE := "$(BIN)/python" -m compileall -qq -j 0 .venv/lib || true
TESTS := $(wildcard $(addprefix tests/,unit browser parity parallel scripts faults network docs distribution))

export PATH := $(BIN):$(PATH)
# horovodrun starts mpirun, which wants to be told twice that root may use it (containers).
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1

.PHONY: help sweep test test-long style docs reference chromium setup setup-test clean

help:
	@sed -n 's/^# //p' Makefile | sed -n '1,9p'

sweep: $(READY)
	"$(BIN)/horovodrun" -np $(NP) "$(BIN)/hvbench" sweep $(SUITE)

test: $(READY_TEST) chromium
	@"$(BIN)/python" -m compileall -q hvbench
	"$(BIN)/python" -m pytest --durations 10 --numprocesses $(PROCESSES) --dist loadgroup --no-loadscope-reorder $(TESTS)

test-long: $(READY_TEST)
	"$(BIN)/python" -m pytest -m long tests

style: $(READY_STYLE)
	"$(BIN)/ruff" format --check .
	"$(BIN)/ruff" check .

docs: $(READY_TEST)
	"$(BIN)/python" -m sphinx --quiet --fail-on-warning docs docs/_build
	@echo "docs/_build/index.html is ready"

reference: $(READY)
	"$(BIN)/python" docs/published.py

# The HTML report is tested in a real browser.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || { \
	    echo "error: the tests of the HTML report need Chromium: apt-get install chromium" >&2; exit 5; }

setup: $(READY)
	@echo ".venv is ready"

setup-test: $(READY_TEST)
	@echo ".venv is ready for the tests"

define MAKE_VENV
@test -n "$(PYTHON)" || { echo "error: Python 3.11 is missing: apt-get install python3.11" >&2; exit 5; }
@"$(PYTHON)" -c '$(SUPPORTED)' || { echo "error: $$("$(PYTHON)" --version) is not supported: set PYTHON to a Python 3.11, 3.12 or 3.13" >&2; exit 5; }
@"$(PYTHON)" -m hvbench.install --check
@"$(BIN)/python" -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear .venv
endef

$(READY): setup.py $(wildcard hvbench/install/*.py)
	@echo "[1/3] A virtual environment in .venv, with $$("$(PYTHON)" --version) (seconds)"
	$(MAKE_VENV)
	@echo "[2/3] PyTorch, TensorFlow, MPI and hvbench (usually about 2 min)"
	@$(PIP_INSTALL) --no-compile --editable '.[$(EXTRAS)]'
	@$(COMPILE)
	@echo "[3/3] Horovod (usually about 4 min on 2 cores, seconds if the cache has it)"
	@"$(BIN)/python" -m hvbench.install
	@"$(BIN)/python" -m compileall -q hvbench # every rank starts sooner, with PYTHONDONTWRITEBYTECODE set, too
	@echo '$(EXTRAS)' > $@

$(READY_TEST): $(READY)
	@grep -qx 'all,test' $(READY) || { \
	    echo "What the tests need (usually about 1 min)" && \
	    $(PIP_INSTALL) --no-compile --no-build-isolation --editable '.[all,test]' && { $(COMPILE); }; }
	@touch $@

$(READY_STYLE): setup.py
	$(MAKE_VENV)
	@$(PIP_INSTALL) '$(RUFF)'
	@touch $@

clean:
	rm -rf .venv build dist docs/_build docs/_generated *.egg-info
