# The two commands of the README are `make demo` and `make test`; `make help` lists the rest.
# Everything may be run again at any time: what is done already is not done twice (stamps in .cache/).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
PYTEST_ARGS ?=
# Two at a time, each file in one process: what a file sets up once is set up once. A process that dies ends the run:
# with another in its place it would wait for ever.
PARALLEL := -n 2 --dist loadfile --max-worker-restart 0
# What containers do, whoever runs them: the same tests for an engine in the command's process, dockpd and dockerd.
BEHAVIOUR := tests/test_run.py tests/test_lifecycle.py tests/test_terminal.py
PROJECTS := core $(patsubst %/pyproject.toml,%,$(wildcard drivers/*/pyproject.toml))
SOURCES := core/src $(wildcard drivers/*/src)
SETUP := .cache/venv.stamp

.PHONY: help venv demo test test-quick test-slow test-daemon test-docker test-vm lint format bench lock dist clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(SETUP) ## make .venv with everything in requirements.lock, and core and drivers in place

.cache/packages-%.stamp: scripts/packages/%.txt
	@scripts/setup.sh packages $*
	@mkdir -p .cache && touch $@

$(SETUP): .cache/packages-base.stamp requirements.lock scripts/setup.sh $(PROJECTS:%=%/pyproject.toml)
	@scripts/setup.sh venv
	@mkdir -p .cache && touch $@

.cache/images/busybox.tar .cache/images/debian.tar: .cache/packages-base.stamp scripts/test-images.sh
	@scripts/test-images.sh .cache/images

demo: $(SETUP) ## real images, `dockp run`, a published port; as root
	@scripts/demo.sh

test: lint test-quick test-slow test-daemon test-docker test-vm ## everything, the quick checks first; as root

test-quick: $(SETUP) .cache/packages-test.stamp .cache/images/busybox.tar ## unit and driver tests
	$(PYTEST) -q $(PARALLEL) -m "not slow" core/tests drivers $(PYTEST_ARGS)

test-slow: $(SETUP) .cache/packages-test.stamp .cache/images/debian.tar ## the slow ones, and those of whole commands
	$(PYTEST) -q -m slow core/tests drivers $(PYTEST_ARGS)
	$(PYTEST) -q $(PARALLEL) tests $(PYTEST_ARGS)

test-daemon: $(SETUP) .cache/packages-test.stamp .cache/images/debian.tar ## what containers do, against dockpd
	DOCKP_TEST_ENGINE=dockpd $(PYTEST) -q $(PARALLEL) $(BEHAVIOUR) tests/test_parallel.py $(PYTEST_ARGS)

test-docker: $(SETUP) .cache/packages-test.stamp .cache/images/debian.tar ## the same, against Docker's own daemon
	DOCKP_TEST_ENGINE=dockerd $(PYTEST) -q $(PARALLEL) $(BEHAVIOUR) $(PYTEST_ARGS)

test-vm: $(SETUP) .cache/packages-test.stamp .cache/packages-vm.stamp .cache/images/busybox.tar ## what needs another kernel
	@scripts/vm/run.sh

lint: $(SETUP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports --cache-dir .cache/import-linter

format: $(SETUP) ## let ruff format and mend what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(SETUP) .cache/packages-bench.stamp ## side by side with runc, docker and podman, dockpd with dockerd; as root
	@scripts/bench.sh

lock: $(SETUP) ## bring requirements.lock up to date
	@test -x .cache/lock/bin/uv || { python3 -m venv .cache/lock && .cache/lock/bin/pip install -q uv; }
	$(BIN)/python scripts/lock.py .cache/lock/bin/uv requirements.lock

dist: $(SETUP) ## build every wheel into dist/
	@rm -rf dist
	@for project in . $(PROJECTS); do $(BIN)/python -m build --no-isolation --wheel --outdir dist $$project >/dev/null; done
	@ls dist

clean: ## remove caches and what was built
	rm -rf .cache dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf .venv
