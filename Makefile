# Each target sets up what it needs by itself. PYTHON: any interpreter from 3.11 on.
PYTHON ?= python3
BIN := .venv/bin
# Waiting OpenMP threads otherwise spin: up to 17 times slower on busy cores.
export OMP_WAIT_POLICY := passive

.PHONY: demo test lint bench clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: .venv/.ready  ## a real brain: pre-train, fine-tune with few labels, compare with the scratch twin
	$(BIN)/scanlearn demo --out demo-out

test: .venv/.ready  ## every test, on two processes of one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

lint: .venv/.ready  ## style, types, and the direction of imports
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.ready  ## speed against plain versions, outputs compared first
	OMP_NUM_THREADS=1 $(BIN)/python bench/genesis_views.py
	$(BIN)/python bench/training_step.py
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	OMP_NUM_THREADS=1 $(BIN)/python bench/patch_reads.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/shuffled_reads.py

clean:
	rm -rf .venv build dist demo-out src/*.egg-info
