# `make run` is all that a user needs. Everything goes into .venv and .venvs; nothing outside this folder is changed.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test bench bench-history bench-tasks bench-server undo-long kills matrix nemesis floods-long hub-long neighbours faults outcomes floods threats kernels check lint types floors blocks format environments chromium redis hub reference pictures lock clean

# More words for the commands:  make run JUPYTER_ARGS="--no-browser --port=9999"   make test PYTEST_ARGS="-k pause -x"
JUPYTER_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
MATRIX ?=
SEEDS ?= 5000

LOCK := requirements.lock
DEV := .venvs/dev/bin/python

# A `claude` on PATH is used as it is. Only without one is the CLI fetched, bundled in a 377 MB wheel.
CLAUDE := $(if $(shell command -v claude 2>/dev/null),path,bundled)
BUNDLED := $(if $(filter bundled,$(CLAUDE)),claude)
# JupyterLab refuses to serve as root unless it is told to.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

comma := ,
RUN_READY := .venv/.ready-$(CLAUDE)
DEV_READY := .venvs/dev/.ready-$(CLAUDE)
IPYKERNELS_READY := .venvs/ipykernel6/.ready .venvs/ipykernel7.3/.ready

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z ]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: $(RUN_READY) ## Set up a private environment and open JupyterLab on the quickstart
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/python -m jupyterlab --LabApp.default_url=/lab/tree/notebooks/quickstart.ipynb $(AS_ROOT) $(JUPYTER_ARGS)

test: environments chromium redis hub ## Set up all that the tests need, and run every test
	@$(DEV) -m compileall -q src # where images keep Python from writing bytecode, each of some thousand processes would compile all of it
	@$(DEV) -m pytest --collect-only -qq >/dev/null || true # rewrites the asserts of all tests once, instead of once in each worker
	$(DEV) -m pytest -n 5 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

faults outcomes floods threats kernels: environments chromium redis hub ## Run the tests of one table of promises and print it
	$(DEV) -m pytest -q --durations=0 --durations-min=999 --table=$@ $(PYTEST_ARGS)

nemesis: environments ## Runs under random faults; SEEDS=5000
	CC_EXECUTOR_TEST_SEEDS=$(SEEDS) $(DEV) -m pytest -q --timeout=0 -o faulthandler_timeout=0 tests/runtime/test_nemesis.py

floods-long: environments chromium ## The floods in their full sizes: 10 GB, a million lines
	CC_EXECUTOR_TEST_LONG=1 $(DEV) -m pytest -q -o faulthandler_timeout=0 --table=floods tests/floods

hub-long: environments chromium hub ## A run of 70 s on a hub that culls after 20 s
	CC_EXECUTOR_TEST_LONG=1 $(DEV) -m pytest -q -o faulthandler_timeout=0 tests/server/test_hub.py

neighbours: .venvs/jupyter-server-mcp/.ready .venvs/jupyter-ai/.ready ## Our tools in the real jupyter-server-mcp, our persona in the real jupyter-ai
	.venvs/jupyter-server-mcp/bin/python -m pytest -q tests/neighbours/in_jupyter_server_mcp.py
	.venvs/jupyter-ai/bin/python -m pytest -q tests/neighbours/in_jupyter_ai.py

matrix: environments ## Run the kernel tests over every ipykernel and Python; MATRIX="7.0 3.13" picks some
	PYTHONPATH=tests $(DEV) -m kernel.matrix $(MATRIX)

bench: environments chromium ## Measure, side by side in one run; BENCH_ARGS="--quick" or "--long"
	$(DEV) benchmarks/run.py $(BENCH_ARGS)

bench-history: environments ## Measure the history of 100,000 runs
	$(DEV) benchmarks/history.py $(BENCH_ARGS)

bench-tasks: environments chromium ## Measure what a task list and its view cost
	$(DEV) -m benchmarks.tasklist
	$(DEV) -m benchmarks.tasks_view

bench-server: environments ## Measure the server extension, beside plain handlers and with a crowd that watches
	$(DEV) -m benchmarks.server $(BENCH_ARGS)

kills: environments ## A task list's runner killed 1,000 times
	CC_EXECUTOR_TEST_LONG=1 $(DEV) -m pytest -q --timeout=0 -o faulthandler_timeout=0 --table=faults tests/runtime/test_tasklist_kills.py

undo-long: environments ## Undo under many kills, and over many trees
	CC_EXECUTOR_TEST_SEEDS=500 HYPOTHESIS_PROFILE=long $(DEV) -m pytest -q --timeout=0 tests/runtime/test_undo_killed.py tests/runtime/test_undo_any_tree.py

check: lint types floors blocks ## Style, types, import contracts, the code blocks of the docs

lint: $(DEV_READY)
	$(DEV) -m ruff check
	$(DEV) -m ruff format --check

types: $(DEV_READY)
	$(DEV) -m pyright --pythonpath $(DEV)

floors: $(DEV_READY)
	.venvs/dev/bin/lint-imports --no-logo

blocks: $(DEV_READY)
	$(DEV) -m pytest -q tests/docs -m "not runs_code"

format: $(DEV_READY) ## Put the code into the one style
	$(DEV) -m ruff check --fix --exit-zero
	$(DEV) -m ruff format

reference: $(DEV_READY) ## Write docs/reference.md anew from the code
	$(DEV) docs/make_reference.py

pictures: environments chromium ## Take the pictures of the docs anew
	CC_EXECUTOR_TEST_PICTURES=$(CURDIR)/docs/images $(DEV) -m pytest -q tests/browser/test_pictures.py tests/browser/test_tasks_pictures.py tests/browser/test_tasks_graph.py

lock: ## Choose the newest allowed versions anew, for every platform and Python
	@command -v uv >/dev/null || CONSTRAINTS= .ci/venv .venvs/lock uv
	PATH="$$PATH:$(CURDIR)/.venvs/lock/bin" uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
	    --no-annotate --no-header --output-file $(LOCK) pyproject.toml

environments: $(DEV_READY) $(IPYKERNELS_READY)

chromium:
	@.ci/chromium

redis:
	@.ci/redis

hub: $(DEV_READY)
	@.ci/hub

clean: ## Remove everything that was set up here
	rm -rf .venv .venvs .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist build

$(RUN_READY): pyproject.toml $(LOCK)
	@.ci/venv .venv -e '.[server$(addprefix $(comma),$(BUNDLED))]' jupyterlab ipykernel
	@touch $@

$(DEV_READY): pyproject.toml $(LOCK)
	@.ci/venv .venvs/dev -e '.[dev$(addprefix $(comma),$(BUNDLED))]'
	@touch $@

# Kernels of the ipykernel 6 line handle messages in another way, so the kernel tests run in both. Those of 7.0 to 7.3 can leave a request unread.
.venvs/ipykernel6/.ready: IPYKERNEL := 6.31
.venvs/ipykernel7.3/.ready: IPYKERNEL := 7.3
$(IPYKERNELS_READY): pyproject.toml $(LOCK)
	@mkdir -p .venvs
	@grep -v '^ipykernel==' $(LOCK) > $(@D).lock
	@CONSTRAINTS=$(@D).lock .ci/venv $(@D) -e . 'ipykernel==$(IPYKERNEL).*'
	@touch $@

# Not with the versions of the lock: what our neighbours need differs from it, and from each other.
.venvs/jupyter-server-mcp/.ready: NEIGHBOUR := -e '.[mcp$(addprefix $(comma),$(BUNDLED))]' 'jupyter-server-mcp>=0.4'
.venvs/jupyter-ai/.ready: NEIGHBOUR := -e '.[server$(addprefix $(comma),$(BUNDLED))]' 'jupyter-ai>=3.2'
.venvs/jupyter-server-mcp/.ready .venvs/jupyter-ai/.ready: pyproject.toml
	@mkdir -p .venvs
	@CONSTRAINTS= .ci/venv $(@D) $(NEIGHBOUR) httpx hypothesis psutil pytest pytest-timeout websocket-client
	@touch $@
