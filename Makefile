# Every target sets up what it needs, in .venv. All that must be there: Python 3.11 or newer, git, make, and PyPI.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3))
BIN := .venv/bin
PIP_INSTALL := -m pip install -qq --disable-pip-version-check

export DO_NOT_TRACK = 1
export ANONYMIZED_TELEMETRY = False
export HF_HUB_OFFLINE = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: help demo serve test test-fast lint types bench pictures lock clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'

demo: .venv/ready ## the main job: several hundred real documents into a store, offline, without a key
	@$(BIN)/python docs/demo.py

serve: .venv/ready ## Prefect for this machine: server, deployments, worker; WORKSPACE=DIR names another folder than this
	@$(BIN)/vectorkeep serve $(if $(WORKSPACE),--workspace "$(WORKSPACE)")

# One more than there are cores: a server, a worker or a browser is waited for half of the time.
WORKERS := $(shell cores=$$(nproc 2>/dev/null || echo 2); [ $$cores -gt 3 ] && echo 4 || echo $$((cores + 1)))

test: .venv/ready ## all tests, side by side
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: .venv/ready ## the tests that take no more than seconds
	@$(BIN)/python -m pytest -q -m "not slow"

lint: .venv/ready ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/ready ## mypy, strict, on the library
	@$(BIN)/mypy

bench: .venv/ready build/peers-venv/ready ## against other tools, each in the same conditions
	@$(BIN)/python -m benchmarks.run

pictures: .venv/ready ## take the pictures of docs/first-hour.md anew, with chromium, which must be there
	@PICTURES=docs/images $(BIN)/python -m pytest -q tests/flows/test_newcomer.py

lock: build/lock-venv/ready ## resolve again; `make lock UPGRADE=--upgrade` takes newer versions
	@rm -rf build/lock && mkdir -p build/lock && cp requirements.lock requirements-dev.lock build/lock
	@echo 'setuptools>=77' | $(LOCK) pyproject.toml - -o build/lock/requirements.lock
	@echo 'setuptools>=77' | $(LOCK) pyproject.toml - --extra dev -c build/lock/requirements.lock -o build/lock/requirements-dev.lock
	@mv build/lock/*.lock . && git diff --stat -- '*.lock'

clean: ## remove what the targets made, the demo too; a store of your own stays
	rm -rf .venv build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The lock is complete, so pip must not resolve: --no-deps. Older pips trip over extras otherwise.
.venv/ready: requirements-dev.lock pyproject.toml
	@if ! "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo 'Python 3.11 or newer is needed and was not found; name it: make PYTHON=/path/to/python3.11' >&2; exit 1; fi
	@echo "setting up .venv with $$("$(PYTHON)" -V): one to three minutes, once"
	@"$(PYTHON)" -m venv .venv
	@$(BIN)/python $(PIP_INSTALL) --require-hashes --no-deps -r requirements-dev.lock
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

build/peers-venv/ready: benchmarks/requirements.txt
	@echo "setting up build/peers-venv"
	@"$(PYTHON)" -m venv build/peers-venv
	@build/peers-venv/bin/python $(PIP_INSTALL) -r benchmarks/requirements.txt
	@touch $@

# One lock for every platform and Python from 3.11 on; no address of an index gets into it.
LOCK = build/lock-venv/bin/uv pip compile --no-config --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-annotate --no-header $(UPGRADE)

build/lock-venv/ready:
	@"$(PYTHON)" -m venv build/lock-venv
	@build/lock-venv/bin/python $(PIP_INSTALL) 'uv>=0.13.8,<0.14'
	@touch $@
