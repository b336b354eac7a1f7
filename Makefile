# Every target does its own set-up: `make demo` on a fresh checkout is enough.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BESIDE := $(VENV)/beside
PEERS := .venv-peers
PEERS_STAMP := $(PEERS)/.installed
ARGS ?=
MINUTES ?= 10

.PHONY: help setup tools servers browser demo test pictures flow-full worlds fuzz bench bench-small bench-peers soak lint format clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with the tradeback command and everything tests need

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "tradeback needs Python 3.11 or newer; name it: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$$($(PYTHON) --version) is too old: tradeback needs 3.11 or newer; name another: make setup PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "this Python cannot make a virtual environment: the package python3-venv is missing"; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then apt-get update -qq && apt-get install -y -qq python3-venv; \
	  else echo "install it: sudo apt-get install python3-venv"; exit 2; fi; }
	@test -x $(BIN)/python || { rm -rf $(VENV); $(PYTHON) -m venv $(VENV); }
	@echo "installing tradeback into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,parquet,influx,redis,nats,mysql]'
	@echo "compiling kernels, once"
	@$(BIN)/python -m tradeback.warm
	@touch $@

tools: ## The C compiler and node that some tests and benchmarks compare with (installed when root)
	@missing=""; command -v cc >/dev/null || missing="gcc libc6-dev"; command -v node >/dev/null || missing="$$missing nodejs"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing$$missing"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	  else echo "not installed:$$missing (what compares with them is skipped)"; fi; fi

servers: ## The servers that tests talk to: Redis, NATS, MariaDB, InfluxDB (installed when root)
	@sh tests/servers/install.sh

browser: ## The Chromium that the page's tests, pictures and benchmark drive (installed when root)
	@for name in chromium chromium-browser google-chrome google-chrome-stable chrome; do \
	  command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing chromium"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-inter; \
	else echo "not installed: chromium (the page's tests are skipped)"; fi

demo: $(STAMP) ## Simulator, engine, the page and a live table; nothing to configure
	@$(BIN)/tradeback demo $(ARGS)

# Two at a time, because most of the time they wait: for a recording in real time, for servers to come back. Not
# more: what waits for a core waits for its deadlines, too.
test: $(STAMP) tools servers browser ## The tests (ARGS="-k tape" chooses some)
ifeq ($(strip $(ARGS)),)
	@{ beside=0; \
	  $(BIN)/python -m pytest -m real_time tests/flow || beside=$$?; \
	  $(BIN)/python -m pytest tests/worlds || beside=$$?; \
	  $(BIN)/python -m pytest -m "not real_time" tests/flow || beside=$$?; exit $$beside; } > $(BESIDE).log 2>&1 & \
	second=$$!; status=0; \
	$(BIN)/python -m pytest --ignore=tests/worlds --ignore=tests/flow || status=$$?; \
	wait $$second || status=$$?; \
	echo; echo "beside them:"; cat $(BESIDE).log; exit $$status
else
	@$(BIN)/python -m pytest $(ARGS)
endif

flow-full: $(STAMP) ## The real recordings, all of them in real time, through the engine: nine minutes
	@TRADEBACK_FLOW=full $(BIN)/python -m pytest tests/flow/test_recordings.py $(ARGS)

worlds: $(STAMP) ## N=200 fault worlds: an engine on an exchange that breaks, checked against the truth
	@$(BIN)/python -m tests.worlds --seeds 0-$$(( $(N) - 1 )) $(ARGS)

pictures: $(STAMP) browser ## The pictures of the page and of the terminal in docs/pictures, from real runs
	@PYTHONPATH=. $(BIN)/python docs/pictures/make_page.py
	@$(BIN)/python docs/pictures/make_demo.py
	@$(BIN)/python docs/pictures/make_tail.py

fuzz: $(STAMP) ## N=1000000 broken frames between good ones: no crash, no neighbour harmed
	@$(BIN)/python -m tests.fuzz --frames $(or $(N),1000000) $(ARGS)

bench: $(STAMP) tools servers browser ## All benchmarks in full size; writes docs/performance.md's tables to benchmarks/results
	@$(BIN)/python -m benchmarks --full $(ARGS)

bench-small: $(STAMP) tools servers browser ## All benchmarks, small: shows that each runs and that its result is right
	@TRADEBACK_BENCH=small $(BIN)/python -m pytest benchmarks -q --benchmark-columns=median,iqr
	@$(BIN)/python -m benchmarks --small $(ARGS)

bench-peers: $(STAMP) $(PEERS_STAMP) ## Other libraries and tradeback on one simulated exchange: five minutes
	@$(BIN)/python -m benchmarks.peers --environment $(PEERS) $(ARGS)

# One by one: a peer that cannot be installed is a row with that reason, and takes no other with it.
$(PEERS_STAMP): benchmarks/peers/requirements.txt benchmarks/peers/constraints.txt
	@test -x $(PEERS)/bin/python || { rm -rf $(PEERS); $(PYTHON) -m venv $(PEERS); }
	@echo "installing other libraries into $(PEERS)"
	@failed=""; while read -r peer; do \
	  $(PEERS)/bin/python -m pip install -qq --disable-pip-version-check -c benchmarks/peers/constraints.txt "$$peer" \
	    </dev/null || { failed=1; echo "not installed: $$peer"; }; \
	done < <(grep -v '^#' benchmarks/peers/requirements.txt); \
	test -n "$$failed" || touch $@

soak: $(STAMP) ## MINUTES=10 of load: memory, latency, files, tasks stay flat, no trade is lost
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

lint: $(STAMP) ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP) ## Let ruff write the files as lint wants them
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove what can be made again; data/ and the tape stay
	@rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
