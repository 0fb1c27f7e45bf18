# The two commands a newcomer needs are `make run` and `make test`; both do all the set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Twice quiet: once still prints setuptools' word on every editable install.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet
INSTALL := $(PIP) --constraint constraints.txt --no-build-isolation --config-settings editable_mode=strict --editable
STACKS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/llm-doctor-stacks
# A python3.8 on PATH may be a shim of pyenv's that runs nothing: only one that answers counts.
PYTHON38 ?= $(shell for python in python3.8 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.8.*/bin/python; do \
	"$$python" -c 'import venv' 2>/dev/null && command -v "$$python" && break; done)
# More than that only wait for each other: every test starts programs of its own.
SIDE_BY_SIDE := -n auto --maxprocesses 4
STACK_2023 := $(STACKS)/2023-$(firstword $(shell cat tests/stacks/2023*.txt | cksum))

.PHONY: run develop test stacks test-stacks test-gpu test-wheel bench measure fuzz faults lint docs check-docs clean help

run: $(VENV)/.run  ## examine this node and the stack in .venv
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/llm-doctor run

develop: $(VENV)/.lint  ## install for development; again after a file was added

test: $(VENV)/.test  ## the test suite, on today's stack
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

stacks: $(STACK_2023)/.done  ## build the 2023 stack, outside the checkout

test-stacks: $(VENV)/.test stacks  ## examine today's stack and the 2023 stack for real
	LLM_DOCTOR_STACK_2023=$(STACK_2023)/bin/python $(BIN)/python -m pytest tests/stacks

test-gpu: $(VENV)/.test  ## every trial on every GPU of this machine (LLM_DOCTOR_PATIENT=python of a stack with CUDA)
	$(BIN)/python -m pytest tests/gpu

bench: $(VENV)/.test  ## time the doctor beside its peers (BENCH="--also NAME=COMMAND --write", SCRIPTS=FOLDER)
	$(PIP) matplotlib
	$(BIN)/python docs/scan.py $(SCRIPTS)
	$(BIN)/python docs/logs.py
	$(BIN)/python docs/reports.py
	$(BIN)/python docs/bench.py $(BENCH)
	$(BIN)/python docs/growth.py $(filter --write,$(BENCH))

measure: $(VENV)/.test  ## what the trials measure on this machine's devices, into docs/measured.md
	$(BIN)/python docs/measure.py --write

faults: $(VENV)/.test  ## run the doctor on every sick machine, into docs/faults.md
	$(BIN)/python docs/faults.py --write

SECONDS ?= 300
fuzz: $(VENV)/.test  ## hostile input for every reader (SECONDS=300, TARGETS="shell log")
	cd tests && $(CURDIR)/$(BIN)/python -m fuzz $(SECONDS) $(TARGETS)

# Those that start the program: the others import what the first run has tested already.
OF_THE_PROGRAM = $(shell grep -lE 'run_doctor|doctor: Run' tests/test_*.py)
test-wheel: $(VENV)/.test  ## the tests of the command line against the built wheel
	rm -rf build/wheel && $(BIN)/python -m build --quiet --wheel --no-isolation --outdir build/wheel
	$(PYTHON) -m venv --clear build/wheel-venv
	build/wheel-venv/bin/python -m pip --disable-pip-version-check install --quiet "$$(ls $(CURDIR)/build/wheel/*.whl)[test]"
	build/wheel-venv/bin/python -m pytest $(SIDE_BY_SIDE) -p no:cacheprovider $(OF_THE_PROGRAM)

lint: $(VENV)/.lint  ## ruff and mypy --strict
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/.test  ## write the pages and the schema that are made from the code
	$(BIN)/python docs/generate.py

check-docs: $(VENV)/.test  ## fail when they are stale
	$(BIN)/python docs/generate.py --check

clean:  ## remove what this file made in the checkout
	rm -rf $(VENV) build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache

help:  ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*##/\1:/p' Makefile

# deepspeed's set-up imports torch, so torch comes first and builds are not isolated.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip setuptools wheel
	$(PIP) --constraint constraints.txt torch
	touch $@

# The strict editable install links file by file: a file added or removed asks for another one.
$(VENV)/.run $(VENV)/.test $(VENV)/.lint: pyproject.toml constraints.txt
$(VENV)/.run $(VENV)/.test $(VENV)/.lint: $(shell find doctor checks fixes -type d -not -name __pycache__)
$(VENV)/.run: $(VENV)/.torch
	$(INSTALL) ".[stack]"
	touch $@

$(VENV)/.test: $(VENV)/.torch
	$(INSTALL) ".[stack,test]"
	touch $@ $(VENV)/.run

$(VENV)/.lint: $(VENV)/.torch
	$(INSTALL) ".[stack,test,lint]"
	touch $@ $(VENV)/.run $(VENV)/.test

$(STACK_2023)/.done:
ifeq ($(PYTHON38),)
	@echo "skipped: the 2023 stack needs Python 3.8, and there is none (set PYTHON38=...)"
else
	rm -rf $(STACK_2023) && mkdir -p $(STACKS)
	$(PYTHON38) -m venv $(STACK_2023)
	$(STACK_2023)/bin/python -m pip --disable-pip-version-check install --quiet --upgrade pip wheel 'setuptools<70'
	$(STACK_2023)/bin/python -m pip --disable-pip-version-check install --quiet --requirement tests/stacks/2023.txt
	$(STACK_2023)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation \
		--requirement tests/stacks/2023-last.txt
	touch $@
endif
