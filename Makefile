# attnservice: every target works from a bare checkout with Python 3.11 or newer, make and git.
# `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PORT ?= 8000
DATA ?= .data
DEMO ?= 1
JOBS ?= 2
ARGS ?= help
SEED ?= 1
DEVICE ?= cuda
QUICK ?= 0
BENCH ?= $(filter-out __init__,$(basename $(notdir $(wildcard benchmarks/*.py))))

py := .venv/bin/python
pytest := $(py) -m pytest -n $(JOBS)

.DEFAULT_GOAL := help
.PHONY: help run verdicts test test-python lint fmt bench bench-peers gpu-smoke models chaos e2e manage secrets lock install

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS="$$(printf '\t')" read -r name text; \
	do printf '  make %-11s %s\n' "$$name" "$$text"; done

run: install  ## the whole service on http://127.0.0.1:8000 (PORT=8000 DATA=.data DEMO=1)
	@exec $(py) -m attnservice.local run --port $(PORT) --data '$(DATA)' --demo $(DEMO)

test: install  ## every test: what touches the database on PostgreSQL, then everything on SQLite (JOBS=2)
	ATTN_TEST_DB=postgres $(pytest) --ignore=tests/pure --ignore=tests/lab --ignore=tests/e2e
	$(pytest)

# Not from requirements.lock, which is that of 3.11: the newest of everything that the ranges in pyproject.toml allow.
test-python:  ## tests/pure and tests/service on another Python, without torch (PYTHON=python3.13 JOBS=2)
	@env=.venv-$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])') && \
	{ test -x $$env/bin/python || $(PYTHON) -m venv $$env; } && \
	$$env/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable '.[test]' && \
	$$env/bin/python -m pytest -n $(JOBS) tests/pure tests/service

e2e: install  ## the browser tests alone; their screenshots go to tests/output
	ATTN_PICTURES=$(or $(PICTURES),1) $(py) -m pytest tests/e2e

templates := experiments/templates
pages := $(templates) experiments/static
# The binary itself, which needs no node. Looked up when it is used: `install` may just have brought it.
biome = $(shell ls -d node_modules/@biomejs/cli-*/biome | head -n 1)

lint: install  ## ruff, mypy (strict), the import contracts; Biome (JS, CSS) and djangofmt (templates)
	$(py) -m ruff check .
	$(py) -m ruff format --check .
	ATTN_INSECURE_KEY=1 $(py) -m mypy
	.venv/bin/lint-imports
	$(biome) check --error-on-warnings
	.venv/bin/djangofmt --check $(templates)
	.venv/bin/djangofmt check $(templates)
	@! LC_ALL=C.UTF-8 grep -rnE '^.{121,}' $(pages) || { echo 'Lines of pages end at 120 characters'; exit 1; }

fmt: install  ## format everything, and fix what the linters can fix
	$(py) -m ruff check --fix-only .
	$(py) -m ruff format .
	$(biome) check --write
	.venv/bin/djangofmt check --fix $(templates)
	.venv/bin/djangofmt $(templates)

verdicts: PORT = 8001
verdicts: DATA = .data-verdicts
verdicts: install  ## train every preset on 2 cores, then write docs/verdicts.md (QUICK=1 PORT=8001 DATA=.data-verdicts)
	@exec $(py) -m attnservice.local verdicts --quick $(QUICK) --port $(PORT) --data '$(DATA)'

bench: install  ## the benchmarks (BENCH="latency run_table"); see benchmarks/results
	@for name in $(BENCH); do echo "== $$name"; $(py) -m benchmarks.$$name || exit 1; done

bench-peers: install  ## environments of other trackers below .peers; `make bench BENCH=peers` then measures them beside ours
	@$(py) -m benchmarks.peers --install

# A Python that is named and has torch is taken as it is, with what is installed there; else the checkout's own.
named := $(filter command environment,$(firstword $(origin PYTHON)))
gpu-smoke: $(if $(named),,install)  ## try the trainer on this machine's GPU: norms, variants, kernels, a resume (DEVICE=cuda PYTHON=python3)
	@$(if $(named),$(PYTHON),$(py)) -m benchmarks.smoke --device $(DEVICE)

models: install  ## every architecture of transformers and timm, tiny: is W_q W_q? Writes the table in docs/any-model.md (JOBS=2)
	$(py) -m tests.lab.models --jobs $(JOBS)

chaos: install  ## kill and freeze everything at random, on SQLite and on PostgreSQL, a simulated day, the long outages; fails on any violation (SEED=1)
	@for database in sqlite postgres; do echo "== $$database"; \
	$(py) -m tests.chaos --database $$database --seed $(SEED) --out benchmarks/results/chaos-$$database.json || exit 1; \
	$(py) -m tests.chaos.day --database $$database --seed $(SEED) || exit 1; done
	$(py) -m pytest -q -m chaos tests/worker

manage: install  ## Django's manage.py on the data folder: make manage ARGS="createsuperuser" DATA=.data
	@$(py) -m attnservice.local manage --data '$(DATA)' -- $(ARGS)

secrets:  ## what docker-compose.yml needs besides: random passwords in ./secrets
	@$(PYTHON) tools/make_secrets.py && echo 'The admin password is in secrets/admin_password'

# Exact versions of everything, without a registry's address. torch stays the plain release: the lock of a machine
# with CUDA wheels would pin a dozen nvidia packages, that of a CPU machine the local version +cpu.
lock: install  ## write requirements.lock anew from the ranges in pyproject.toml
	@pins=$$(mktemp) && echo 'torch==2.13.0' > "$$pins" && \
	$(py) -m piptools compile --quiet --upgrade --all-extras --strip-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --no-emit-options --constraint "$$pins" --output-file requirements.lock.new pyproject.toml && \
	sed -E -e 's/^(torch==[0-9.]+)\+.*/\1/' -e '/^(nvidia-|cuda-|triton|#|$$)/d' requirements.lock.new > requirements.lock; \
	rm -f "$$pins" requirements.lock.new

install:
	@test -n "$(PYTHON)" || { echo 'attnservice needs Python 3.11 or newer (Debian, Ubuntu: sudo apt-get install python3.11 python3.11-venv)'; exit 1; }
	@$(PYTHON) tools/install.py
