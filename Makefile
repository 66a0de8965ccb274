# make run and make test are all a fresh machine with Python 3.11, 3.12 or 3.13 needs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   ?= .venv
DEMO   ?= .demo
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
RUNS   := $(BIN)/catalog-rectifier

.DEFAULT_GOAL := help
.PHONY: help tools install run server stop test test-slow lint lock docs notebook audit evidence bench bench-scale clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp's name holds the torch asked for, so that another one is another install.
STAMP     := $(VENV)/.app-$(subst /,_,$(subst =,_,$(TORCH)))
TESTSTAMP := $(STAMP)-test

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --upgrade "$$(grep '^pip==' constraints.txt)"
	$(BIN)/python -m pip install --quiet "$(TORCH)" --constraint $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --editable "." --constraint $(VENV)/constraints.txt
	touch $@

$(TESTSTAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[test]" --constraint $(VENV)/constraints.txt
	touch $@

# What some tests drive for real; where it cannot be installed those tests skip, saying so.
tools: ## install redis-server and strace for the tests, where this is Debian and we may
	@for tool in redis-server strace; do command -v $$tool > /dev/null || missing="$$missing $$tool"; done; \
	if test -n "$$missing" && test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
	  echo "installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing > /dev/null || true; \
	elif test -n "$$missing"; then echo "not installed, their tests will be skipped:$$missing"; fi

install: $(STAMP) ## install the application into .venv

run: $(STAMP) ## build the demo catalog, run the nightly flow once, say what it found
	$(RUNS) demo $(DEMO)
	$(RUNS) rectify --config $(DEMO)/run.toml
	$(RUNS) score --config $(DEMO)/run.toml --truth $(DEMO)/truth

# Everything the server keeps lies in SERVER; CONFIG is the run config that its deployments take by default.
SERVER ?= .prefect
PORT   ?= 4200
CONFIG ?= $(DEMO)/run.toml

server: $(STAMP) ## start a Prefect server and a worker, register every deployment
	@test -e "$(CONFIG)" || $(RUNS) demo "$(DEMO)"
	@$(RUNS) server start --config "$(CONFIG)" --folder "$(SERVER)" --port $(PORT)

stop: ## end them
	@test ! -x $(BIN)/python || $(RUNS) server stop --folder "$(SERVER)"

lint: $(TESTSTAMP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: tools lint ## what .ci/run calls: lint, types, every test that is not marked slow
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

test-slow: $(TESTSTAMP) ## the longer proofs
	$(BIN)/python -m pytest -m slow

# The newest Python needs packages that the oldest does not. It is asked second, and takes the versions of the first.
lock: ## write constraints.txt from a fresh resolution of pyproject.toml, by python3.11 and python3.13
	rm -rf .lock && mkdir .lock && touch .lock/pins
	for python in python3.11 python3.13; do \
	  $$python -m venv .lock/$$python && \
	  .lock/$$python/bin/python -m pip install --quiet --upgrade pip && \
	  .lock/$$python/bin/python -m pip install --quiet "$(TORCH)" ".[test]" --constraint .lock/pins $(PINS) && \
	  .lock/$$python/bin/python -m pip freeze --all --exclude catalog-rectifier | sed -E 's/\+.*$$//; s/^([A-Za-z0-9_.-]+) @ .*//' \
	    | grep -vE '^(setuptools==|nvidia-|cuda-|triton==|$$)' >> .lock/pins || exit; \
	done
	LC_ALL=C sort -u .lock/pins | LC_ALL=C sort -f -t= -k1,1 > constraints.txt
	rm -rf .lock

docs: $(STAMP) ## write docs/configuration.md from the config dataclasses
	PYTHONPATH=. $(BIN)/python docs/config_reference.py > .configuration.md && mv .configuration.md docs/configuration.md

notebook: $(STAMP) ## write docs/notebook.ipynb from docs/notebook.md, with its outputs
	$(RUNS) demo $(DEMO)/shop
	cd $(DEMO) && PYTHONPATH=$(CURDIR) $(abspath $(BIN))/python $(CURDIR)/docs/build_notebook.py $(CURDIR)/docs/notebook.ipynb

audit: ## known vulnerabilities of every pin, by pip-audit; fails where the advisory services cannot be reached
	test -x .audit/bin/pip-audit || { $(PYTHON) -m venv .audit && .audit/bin/python -m pip install --quiet pip-audit==2.10.1; }
	.audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --strict --desc off --progress-spinner off $(AUDIT)

GRIDS ?= stress curve controls modalities kinds settings editing together demo

evidence: $(STAMP) ## run the grids of docs/evidence (hours; GRIDS="stress controls" for some)
	test -d .evidence/demo/catalog || $(RUNS) demo .evidence/demo --items 4000 --users 6000 --interactions 30000 --mismatch image=0 --mismatch text=0
	for grid in $(GRIDS); do $(RUNS) evaluate --config docs/evidence/$$grid.toml || exit; done

# MMRec is no dependency: MMREC is a clone of it, PANDAS what it needs beside torch (benchmarks/README.md).
DATA    ?= ../shared/data
MMREC   ?=
PANDAS  ?=
RESULTS := benchmarks/results
TABLE    = echo "$(1)" && $(BIN)/python -m benchmarks.$(1) $(2) > .bench.md && mv .bench.md $(RESULTS)/$(lastword $(subst ., ,$(1))).md

bench: $(TESTSTAMP) ## every table that takes minutes, into benchmarks/results
	$(call TABLE,speed.top_k,)
	$(call TABLE,speed.projection,)
	$(call TABLE,speed.sinkhorn,)
	$(call TABLE,speed.publish,)
	$(call TABLE,nights.online_reads,)
	$(call TABLE,speed.cluster,)
	$(call TABLE,nights.incremental,--items 6000 --image 384 --text 128 --nights 1 --changed 0.01)
	@if test -d "$(DATA)"; then $(call TABLE,speed.anchor_curve,--data $(DATA) --seeds 2 --logs sparse clustered); \
	else echo "anchor_curve: skipped, there is no folder $(DATA); say DATA=folder"; fi
	@if test -d "$(MMREC)"; then PYTHONPATH="$(PANDAS)" && export PYTHONPATH && $(call TABLE,peers.lightgcn_epoch,--mmrec $(MMREC)); \
	else echo "lightgcn_epoch: skipped; git clone https://github.com/enoche/MMRec and say MMREC=folder PANDAS=folder"; fi

bench-scale: $(STAMP) ## how a whole night grows: 10,000, 100,000 and 1,000,000 items, an hour and 40 GB (SIZES= for less)
	$(call TABLE,nights.scale,$(SIZES))

SIZES ?= --large --next-night --set resources.memory='"8GiB"'

clean: stop ## remove the virtual environment, the demo and the server's data
	rm -rf $(VENV) $(DEMO) "$(SERVER)" .lock .audit .pytest_cache .mypy_cache .ruff_cache .hypothesis
