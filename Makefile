# make sweep    set everything up, then train and compare both frameworks (NP=2 SUITE=quickstart)
# make test     set everything up, then run the tests, cheap ones first
# make docs     set everything up, then write the documentation as HTML
# make setup    only set up: .venv with PyTorch, TensorFlow, MPI, hvbench and a Horovod built for them
# make clean    remove .venv; the built Horovod stays in the user's cache
#
# The first set-up takes about 8 minutes on 2 cores, any later one seconds. PYTHON=... chooses the interpreter;
# pip's own variables (PIP_INDEX_URL, ...) and HVBENCH_CACHE are honoured.

ifndef PYTHON
PYTHON := $(shell for python in python3.11 python3; do \
            $$python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$python && break; done)
endif
NP ?= 2
SUITE ?= quickstart

BIN := $(CURDIR)/.venv/bin
READY := .venv/ready
TESTS := $(wildcard $(addprefix tests/,unit browser parity parallel faults network docs))

export PATH := $(BIN):$(PATH)
# horovodrun starts mpirun, which wants to be told twice that root may use it (containers).
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1

.PHONY: help sweep test docs chromium setup clean

help:
	@sed -n 's/^# //p' Makefile | sed -n '1,5p'

sweep: $(READY)
	$(BIN)/horovodrun -np $(NP) $(BIN)/hvbench sweep $(SUITE)

test: $(READY) chromium
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup $(TESTS)

docs: $(READY)
	$(BIN)/python -m sphinx --quiet --fail-on-warning docs docs/_build
	@echo "docs/_build/index.html is ready"

# The HTML report is tested in a real browser.
chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	    test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } || { \
	    echo "error: the tests of the HTML report need Chromium: apt-get install chromium" >&2; exit 5; }

setup: $(READY)
	@echo ".venv is ready"

$(READY): setup.py $(wildcard hvbench/install/*.py)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 is missing: apt-get install python3.11" >&2; exit 5; }
	@$(PYTHON) -m hvbench.install --check
	@echo "[1/3] A virtual environment in .venv, with $$($(PYTHON) --version) (seconds)"
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@echo "[2/3] PyTorch, TensorFlow, MPI and hvbench (usually about 2 min)"
	@$(BIN)/python -m pip install --disable-pip-version-check --editable '.[all,test]'
	@echo "[3/3] Horovod (usually about 4 min on 2 cores, seconds if the cache has it)"
	@$(BIN)/python -m hvbench.install
	@$(BIN)/python -m compileall -q hvbench # every rank starts sooner, with PYTHONDONTWRITEBYTECODE set, too
	@touch $@

clean:
	rm -rf .venv build dist docs/_build docs/_generated *.egg-info
