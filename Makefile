# `make demo` and `make test` work on a fresh machine: they set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check format bench zoo clean

setup: $(VENV)/ready

# torch comes first and pinned: a plain `torch` can pull gigabytes of CUDA libraries.
$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "preimage needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/preimage demo -o demo

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadscope

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# Trains what ships, all of it: minutes on a large GPU, many hours on two cores. Once more goes on where it stopped.
# PHOTOS and VAL name photographs, SET what `--set` takes: make zoo PHOTOS='photos/train-*.tar' VAL=photos/val.tar
# On a large GPU let JOBS processes share the work; the last line then tells how far all have come.
RUNS ?= runs/zoo
JOBS ?= 1
ZOO = $(BIN)/preimage zoo train --images '$(PHOTOS)' $(if $(VAL),--val '$(VAL)') --runs $(RUNS) $(foreach s,$(SET),--set $(s))
zoo: setup
	$(if $(filter-out 1,$(JOBS)),for job in $$(seq $(JOBS)); do $(ZOO) & done; wait)
	$(ZOO)

clean:
	rm -rf $(VENV) demo dist .mypy_cache .pytest_cache .ruff_cache
