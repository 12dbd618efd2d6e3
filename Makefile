# `make test` and `make demo` do all their own set-up: Python 3.11+ and git are enough to begin.
#
#   PYTHON=python3.13 VENV=.venv-3.13 make test    another interpreter, in an environment of its own
#   KAFKA_BOOTSTRAP=host:9092 make test            a broker that is already running
#   PYTEST_ARGS="-k codec -x" make test            what pytest is told besides
#   JOBS=1 make test                               the tests in one process, not several side by side

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup test quick lint format types imports pytest demo bench kafka chaos soak clean

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# More than cores: many tests wait for brokers, timeouts and other processes. A file's tests stay in one process, and
# those that take long begin (tests/conftest.py).
JOBS ?= 4
SIDE_BY_SIDE := -n $(JOBS) --dist loadfile --no-loadscope-reorder

# The first interpreter that is new enough, not the first that is called python3.
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
  $(shell $(p) -c '$(NEW_ENOUGH)' >/dev/null 2>&1 && echo $(p))))
UV := $(shell command -v uv 2>/dev/null)

help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(BIN)/python:
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(NEW_ENOUGH)' || \
	  { echo "refold needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3"; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
ifdef UV
	@$(UV) venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
else
	@$(PYTHON) -m venv $(VENV)
endif

# A stamp for each extra: what is asked for is installed again only when pyproject.toml has changed.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "installing refold[$*] into $(VENV)"
ifdef UV
	@$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[$*]'
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$*]'
endif
	@touch $@

# Compiled once, though the environment may say that Python is not to: tests start hundreds of processes.
setup: $(VENV)/.installed-dev ## Make .venv with everything that development needs
	@$(BIN)/python -m compileall -q engine log projections services tools benchmarks/harness examples/demo

test: lint types imports pytest ## Lint, types, import contracts and all tests, on a real Kafka broker too

quick: setup ## The tests that need neither a broker nor patience
	$(BIN)/pytest $(SIDE_BY_SIDE) -m "not slow and not kafka" $(PYTEST_ARGS)

pytest: setup
	$(BIN)/pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)

lint: setup ## ruff, checks and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup ## Let ruff format, and fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## mypy (strict) and pyright
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

imports: setup ## The import contracts of pyproject.toml
	$(BIN)/lint-imports

demo: $(VENV)/.installed-demo ## A durable job on real data, killed twice on the way (KAFKA=1: on a real broker)
	$(BIN)/python examples/demo/run.py

bench: $(VENV)/.installed-bench ## Measure throughput, latency and recovery, beside a peer
	$(BIN)/python benchmarks/run.py

kafka: $(VENV)/.installed-demo ## Start a Kafka broker, print its address, run until Ctrl-C
	$(BIN)/python tools/kafka_broker.py

chaos: setup ## Break brokers, workers and links under load, and judge the history (SEED, SECONDS, BROKERS=3, WORKERS=3)
	$(BIN)/python tools/chaos_run.py --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) \
	  --brokers $(or $(BROKERS),3) --workers $(or $(WORKERS),3) --clients $(or $(CLIENTS),3) --pause $(or $(PAUSE),3) \
	  $(if $(ONLY),--only $(ONLY))

soak: setup ## Steady load: do memory, open files, threads and lag stay flat? (MINUTES=30 for each log, LOG=sqlite or kafka)
	$(BIN)/python tools/chaos_soak.py --minutes $(or $(MINUTES),30) $(if $(LOG),--log $(LOG)) --rate $(or $(RATE),10)

clean: ## Remove the environment and all that was built
	rm -rf $(VENV) build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
