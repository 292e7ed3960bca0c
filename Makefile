# `make run` and `make test` are all that you need. Each sets itself up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run test test-unit pytest test-cluster check format protos dashboards metrics-docs chart-docs decisions lock sbom audit \
	drill bench bench-peers bench-growth attack fuzz chaos clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	@echo "setting up $(VENV) (the first time takes a minute or two)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Paquebot needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --editable '.[engines,dev]'
	@touch $@

run: $(STAMP)  ## run the whole platform here (ARGS=--once: stop after the round trip)
	@$(BIN)/paquebot up $(ARGS)

JOBS ?= 3
test: check  ## check the code, then run the whole suite (ARGS=... goes to pytest; JOBS=3 parts of it at once)
	@$(BIN)/python -m pytest -q -n $(JOBS) --no-loadscope-reorder $(ARGS)

test-unit: $(STAMP)  ## the unit tests without the slow ones and without engines, in about half a minute (ARGS=... goes to pytest)
	@$(BIN)/python -m pytest -q -n $(JOBS) -m "not slow and not cluster" --hypothesis-profile=quick tests/unit $(ARGS)

pytest: $(STAMP)  ## pytest alone, without the checks (ARGS=tests/unit/wire; ARGS="tests/dialogues -k idle")
	@$(BIN)/python -m pytest -q $(ARGS)

test-cluster: $(STAMP)  ## build, install and try everything on the cluster that KUBECONFIG names
	@$(BIN)/python -m pytest -q -m cluster tests/cluster $(ARGS)

check: $(STAMP)  ## ruff, mypy --strict, import-linter, class names, decision records; stubs, dashboards and lists of the chart up to date
	@$(BIN)/ruff check services tests
	@$(BIN)/ruff format --check --quiet services tests || { echo "run make format"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@$(BIN)/python -m tests.checks.names
	@$(BIN)/python -m tests.checks.decisions
	@rm -rf $(VENV)/stubs && mkdir -p $(VENV)/stubs && PYTHON=$(BIN)/python protos/generate.sh $(VENV)/stubs
	@diff -r --exclude=__pycache__ --exclude=__init__.py $(VENV)/stubs/paquebot/v1 services/paquebot/v1 \
		|| { echo "the stubs are not what protos/ says: run make protos"; exit 1; }
	@$(BIN)/ruff check deploy/dashboards && $(BIN)/ruff format --check --quiet deploy/dashboards || { echo "run make format"; exit 1; }
	@cd deploy && ../$(BIN)/mypy --config-file ../pyproject.toml -p dashboards
	@cd deploy && ../$(BIN)/python -m dashboards --check
	@$(BIN)/python -m tests.chart.generated_files --check

protos: $(STAMP)  ## generate the gRPC and protobuf stubs from protos/
	@PYTHON=$(BIN)/python protos/generate.sh services

dashboards: $(STAMP)  ## write the chart's Grafana dashboards from deploy/dashboards/
	@cd deploy && ../$(BIN)/python -m dashboards

chart-docs: $(STAMP)  ## write the chart's table of values, its schema's descriptions, and its lists of what the code knows
	@$(BIN)/python -m tests.chart.values_table
	@$(BIN)/python -m tests.chart.generated_files

metrics-docs: $(STAMP)  ## write docs/metrics.md from the metrics that the services declare
	@$(BIN)/python docs/metrics_catalogue.py > $(VENV)/metrics.md
	@mv $(VENV)/metrics.md docs/metrics.md

decisions: $(STAMP)  ## write the index of the decision records, docs/decisions/README.md
	@$(BIN)/python -m tests.checks.decisions --write

LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-emit-index-url \
	--no-emit-find-links --annotation-style line --custom-compile-command "make lock" $(ARGS)
lock: $(STAMP)  ## lock the image's dependencies: deploy/*.lock (ARGS=--upgrade: the newest versions)
	@$(BIN)/python -m pip install --quiet --editable '.[engines,dev,lock]'
	@$(LOCK) pyproject.toml --extra trace --output-file deploy/requirements.lock
	@$(LOCK) pyproject.toml --extra trace --extra engines --constraint deploy/requirements.lock --output-file deploy/requirements-engines.lock
	@echo "setuptools>=68" | $(LOCK) - --output-file deploy/requirements-build.lock

sbom: $(STAMP)  ## list what the images hold, as CycloneDX: build/sbom.json, build/sbom-engines.json
	@$(BIN)/python -m pip install --quiet --editable '.[engines,dev,lock]'
	@rm -rf build/locked && mkdir -p build
	@$(BIN)/uv venv --quiet --python $(BIN)/python build/locked
	@for name in "" -engines; do \
		$(BIN)/uv pip sync --quiet --python build/locked/bin/python --require-hashes deploy/requirements$$name.lock \
		&& $(BIN)/cyclonedx-py environment build/locked --pyproject pyproject.toml --output-reproducible --output-file build/sbom$$name.json \
		|| exit 1; \
	done

audit: $(STAMP)  ## look up known vulnerabilities of the locked packages (needs PyPI; fails when it cannot ask)
	@$(BIN)/python -m pip install --quiet --editable '.[engines,dev,lock]'
	@for lock in deploy/*.lock; do \
		$(BIN)/pip-audit --strict --disable-pip --require-hashes --progress-spinner off --requirement $$lock \
			|| { echo "make audit: $$lock: a package is vulnerable or could not be looked up: see above"; exit 1; }; \
	done

format: $(STAMP)  ## format the code and fix what ruff can fix
	@$(BIN)/ruff format --quiet services tests deploy/dashboards
	@$(BIN)/ruff check --fix --quiet services tests deploy/dashboards

drill: $(STAMP)  ## lose everything, then the mailstore alone, and get all mail back (ARGS=--messages=5000)
	@$(BIN)/python -m tests.drill $(ARGS)

bench: $(STAMP)  ## measure our platform, and Postfix + Dovecot beside it: build/bench.json, build/bench.md (ARGS=--help)
	@$(BIN)/python -m tests.bench $(ARGS)

bench-peers:  ## install Debian's Postfix and Dovecot for `make bench` to compare with (as root; nothing is started)
	@tests/bench/peers/install.sh

bench-growth: $(STAMP)  ## draw how our figures grow with size, accounts, mailboxes and replicas: build/growth-*.png
	@$(BIN)/python -m pip install --quiet --editable '.[engines,dev,bench]'
	@$(BIN)/python -m tests.bench.growth $(ARGS)

attack: $(STAMP)  ## how ordinary clients fare while others attack (ARGS="--seconds 10")
	@$(BIN)/python -m tests.attack.measure $(ARGS)

FUZZ_SECONDS ?= 60
fuzz: $(STAMP)  ## fuzz every parser of strangers' bytes, guided by coverage (FUZZ_SECONDS=60 for each, FUZZ="smtp dns")
	@$(BIN)/python -m pip install --quiet --editable '.[engines,dev,fuzz]'
	@mkdir -p build/fuzz
	@for name in $(or $(FUZZ),$$($(BIN)/python -m tests.fuzz --list)); do \
		echo "== $$name"; \
		($(BIN)/python -m tests.fuzz $$name -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$name- > build/fuzz/$$name.log 2>&1) \
			|| { tail -40 build/fuzz/$$name.log; echo "$$name: see build/fuzz/"; exit 1; }; \
		grep -E "stat::number_of_executed_units|stat::average_exec" build/fuzz/$$name.log; \
	done

chaos: $(STAMP)  ## kill, freeze, fill and cut off a platform under mail, and judge (ARGS='--seed N --minutes M')
	@$(BIN)/python -m tests.chaos $(ARGS)

clean:  ## remove the virtual environment and caches; mail in .paquebot/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find services tests -name __pycache__ -type d -prune -exec rm -rf {} +
