# Threads of libgomp that spin while they wait slow small shared machines down; see src/melprint/__init__.py.
export OMP_WAIT_POLICY = passive

PYTHON ?= python3
FAISS ?= cpu
BIN = .venv/bin

.PHONY: demo test test-slow check format install clean

demo: .venv/installed
	$(BIN)/python train.py overwrite=true
	$(BIN)/python generate.py
	$(BIN)/python evaluate.py

test: .venv/tested
	$(BIN)/python -m pytest

test-slow: .venv/tested
	$(BIN)/python -m pytest -m slow

check: .venv/tested
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/installed

# uv installs the same as pip in a third of the time. Compiling now saves every later command 15 s where bytecode is not kept.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "melprint needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[$(FAISS),sweep,dev]'
	touch $@

# What only tests need: the demo goes without.
.venv/tested: .venv/installed
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[$(FAISS),sweep,dev,milvus-lite,milvus-server,mysql,postgresql,listen]'
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
