# make quickstart   pretrain, evaluate and compare three objectives on Fashion-MNIST
# make test         lint, types and the tests that are not marked slow
# make test-all     the slow tests too, and shapes of all tensors at run time: everything that CI checks
# make lint         style of the code, by ruff
# make types        annotations, by mypy
# make clean        remove the runs of the quickstart

VENV    ?= .venv
PYTHON  ?= python3
BIN     := $(VENV)/bin
RUNS    := runs/quickstart
CONFIGS := simclr siglip vicreg
PYTEST  := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

.PHONY: help install data quickstart lint types test test-all clean

help:
	@sed -n 's/^# //p' Makefile

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
		{ echo "ssl_ebm needs Python 3.10 or newer, found: $$($(PYTHON) --version 2>&1). Try: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@free=$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}'); [ -x $(BIN)/python ] || [ "$$free" -ge 9 ] || \
		{ echo "installing torch needs about 9 GB of disk, found $$free GB free here"; exit 1; }
	@[ -x $(BIN)/python ] || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing ssl_ebm and its dependencies (torch is large: a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

data: install
	@$(BIN)/python -W ignore -m ssl_ebm.data || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing the package dataset-fashion-mnist"; \
			apt-get update -qq && apt-get install -y -qq --no-install-recommends dataset-fashion-mnist >/dev/null && \
			$(BIN)/python -W ignore -m ssl_ebm.data; \
		else exit 1; fi; }

quickstart: data
	@for name in $(CONFIGS); do \
		if [ -f $(RUNS)/$$name/evaluation.json ]; then echo "$(RUNS)/$$name is there already (make clean removes it)"; \
		else \
			resume=$$([ -f $(RUNS)/$$name/checkpoints/last.pt ] && echo --resume); \
			$(BIN)/ssl-ebm pretrain configs/quickstart/$$name.yaml $$resume && $(BIN)/ssl-ebm evaluate $(RUNS)/$$name || exit 1; \
		fi; \
	done
	@$(BIN)/ssl-ebm compare $(addprefix $(RUNS)/,$(CONFIGS))

lint: install
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: install
	@$(BIN)/mypy

test: lint types data
	@CHECK_SHAPES=0 $(PYTEST)

test-all: lint types data
	@$(PYTEST) -m ''

clean:
	rm -rf $(RUNS)
