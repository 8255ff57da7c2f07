# make demo   sets up, then prepare -> finetune -> eval -> report on the embedded sample
# make test   sets up, then runs the tests
# make check  what CI runs: style, lint, types, tests
# make slow   the tests that take minutes

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MEDVLM := ../$(BIN)/medvlm

.PHONY: demo test check style lint types slow install setup clean

setup: $(VENV)/.ready

# constraints.txt keeps torch at a release whose CPU build is small; README says how to choose another.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

install:
	$(PYTHON) -m pip install -c constraints.txt .

demo: setup
	mkdir -p demo
	cd demo && $(MEDVLM) prepare pmc
	cd demo && $(MEDVLM) finetune recipes/tiny.yaml
	cd demo && $(MEDVLM) eval --metrics bleu,rouge,cider
	cd demo && $(MEDVLM) report runs/latest

test: setup
	$(BIN)/pytest -n 2 -m "not slow and not gpu"

slow: setup
	$(BIN)/pytest -n 2 -m slow

style: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

check: style lint types test

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache
