# Each target does its own set-up on a fresh Debian 12, and is quick when that is there already.
#
#   make demo    containers, as root and as an ordinary user
#   make test    unit tests and system tests
#   make lint    ruff, mypy, import-linter, C warnings as errors
#   make vm      the suites that need a machine of their own, in disposable VMs
#   make bench   figures, as ratios to other engines in the same run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard native/Makefile native/*/*.[ch] native/*/*.cdef native/*/*.py) setup.py
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: demo test unit lint native-check vm bench setup packages-demo packages-test packages-bench packages-vm clean

demo: packages-demo $(VENV)/.native
	$(AS_ROOT) $(BIN)/python tests/host -- $(BIN)/python examples/demo.py
	$(AS_ROOT) $(BIN)/python tests/host --user -- $(BIN)/python examples/demo.py

test: packages-demo packages-test $(VENV)/.native
	$(BIN)/pytest -q -n 2 tests/unit
	$(MAKE) -s native-check
	$(AS_ROOT) $(BIN)/pytest -q tests/system
	$(AS_ROOT) $(BIN)/python tests/host --user -- $(BIN)/pytest -q -p no:cacheprovider -m rootless tests/system

unit: $(VENV)/.native
	$(BIN)/pytest -q -n 2 tests/unit

native-check: $(VENV)/.native
	$(MAKE) -s -C native BUILD=$(CURDIR)/build/check check

lint: packages-demo packages-test $(VENV)/.native
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) -s -C native BUILD=$(CURDIR)/build/lint programs helper

vm: packages-demo packages-test packages-vm $(VENV)/.native
	$(AS_ROOT) vm/suites

bench: packages-demo packages-bench $(VENV)/.native
	$(AS_ROOT) $(BIN)/python tests/host -- $(BIN)/python benchmarks/run.py

setup: packages-demo $(VENV)/.native

packages-demo packages-test packages-bench:
	@tools/install-packages $(patsubst packages-%,%,$@)

packages-vm:
	@tools/install-packages ../../vm/packages

$(VENV)/.packages: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --editable '.[cli,service,dev]'
	touch $@ $(VENV)/.native

$(VENV)/.native: $(VENV)/.packages $(NATIVE)
	$(BIN)/python setup.py -q build_ext --inplace --build-temp build/native
	$(MAKE) -s -C native BUILD=$(CURDIR)/build/tests helper
	touch $@

clean:
	rm -rf build $(VENV) pyengine/_native pyengine/*.so pyengine.egg-info
