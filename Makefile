# Commands for developers and servers. They need Python 3.11, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := benchmarks/peers
# Packages are run by `python -m`: their scripts fail where the path of the checkout contains spaces or is too long.
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: serve dev env test lint format types lock bench bench-large clean

serve: $(VENV)/serve  ## install, migrate, seed, create an administrator, serve
	@exec $(BIN)/python manage.py serve

dev: $(VENV)/dev  ## the same, with restarts on every change and readable errors
	@DEBUG=$${DEBUG:-true} exec $(BIN)/python manage.py serve --reload

env:  ## write .env with generated secrets, for serve and docker compose; POSTGRES_PORT=… chooses another port
	@"$(PYTHON)" config/write_env.py

test: $(VENV)/dev  ## run the tests; ARGS='-k paging' selects some
	@PYTHONDONTWRITEBYTECODE= exec $(BIN)/python -m pytest $(ARGS)

bench-large: $(VENV)/dev  ## measure 10,000 to 10,000,000 stocks on PostgreSQL: 10 GB, half an hour; ARGS='--sizes 10000,100000'
	@exec $(BIN)/python benchmarks/large.py $(ARGS)

lint: $(VENV)/dev  ## check style, spelling, docstrings, imports and types
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m codespell_lib
	@$(BIN)/python .ci/docstrings.py config records users stocks
	@$(BIN)/python -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo
	@$(BIN)/python -m mypy .

format: $(VENV)/dev  ## fix style
	@$(BIN)/python -m ruff check --fix-only -q . ; $(BIN)/python -m ruff format .

lock: $(VENV)/dev  ## pin all versions again, after a change of a .in file
	@$(BIN)/python -m pip install -qq uv
	@$(BIN)/python -m uv pip compile -q --python-version 3.11 --no-header requirements.in requirements-test.in -o requirements.txt
	@$(BIN)/python -m uv pip compile -q --python-version 3.11 --no-header requirements-dev.in -o requirements-dev.txt
	@$(BIN)/python -m uv pip compile -q --python-version 3.11 --no-header $(PEERS)/requirements.in -o $(PEERS)/requirements.txt

bench: $(VENV)/serve $(PEERS)/.venv/installed  ## compare with FastAPI, Litestar and plain DRF, in 15 minutes; ARGS=--help lists options
	@exec $(BIN)/python benchmarks/compare.py $(ARGS)

clean:
	rm -rf $(VENV) $(PEERS)/.venv .mypy_cache .pytest_cache .ruff_cache var/static

$(VENV)/python:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Error: Python 3.11 or newer is required, but '$(PYTHON)' is not: make $(or $(MAKECMDGOALS),serve) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { echo "Error: Cannot create a virtual environment: is python3-venv installed?" >&2; exit 1; }
	@touch $@

$(VENV)/serve: requirements.txt | $(VENV)/python
	@echo "Installing …"
	@$(BIN)/python -m pip install -qq -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt requirements.txt | $(VENV)/python
	@echo "Installing …"
	@$(BIN)/python -m pip install -qq -r requirements-dev.txt
	@touch $@ $(VENV)/serve

$(PEERS)/.venv/installed: $(PEERS)/requirements.txt requirements.txt | $(VENV)/python
	@echo "Installing the peers …"
	@$(BIN)/python -m venv $(PEERS)/.venv
	@$(PEERS)/.venv/bin/python -m pip install -qq -r $(PEERS)/requirements.txt
	@touch $@
