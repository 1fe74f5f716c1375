# Everything a first-time user or CI runs. Each target makes the virtual environment it needs.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: install links demo test test-fast lint format bench bench-train bench-learn bench-extract clean

install: $(VENV)/installed

# Takes minutes and about 7 GB the first time (torch and its libraries); reused while up to date.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## clips -> features -> training -> report, in the folder demo/
	$(BIN)/clipmsa demo

test: install  ## every test; those of the report in a browser need Chromium on the machine
	$(BIN)/pytest -n auto --dist worksteal

test-fast: install  ## about a minute: no encoder, no training, no process
	$(BIN)/pytest -n auto --dist worksteal -m "not slow"

# Type checkers cannot follow an editable install's import hook: links show the folders by the
# import name. Only they use it.
links:
	rm -rf .links && mkdir -p .links/clipmsa
	ln -s $(CURDIR)/cache $(CURDIR)/cli $(CURDIR)/extract $(CURDIR)/fusion $(CURDIR)/api/* .links/clipmsa

lint: install links  ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p clipmsa
	$(BIN)/mypy tests benchmarks examples

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install  ## the co-attention unit against the equations as printed; prints JSON
	$(BIN)/python benchmarks/bench_unit.py

bench-train: install  ## training against plain implementations and the machine's peak
	$(BIN)/python benchmarks/bench_train.py

bench-learn: install  ## what training recovers of planted signals, against ridge and the oracle; hours
	$(BIN)/python benchmarks/bench_learn.py --json bench-learn.json

bench-extract: install  ## extract against its encoders alone and against a plain script
	$(BIN)/python benchmarks/bench_extract.py

clean:
	rm -rf build demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
