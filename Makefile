# Every target makes its own environment first, so each works on a fresh machine.
# The system's own Python where it is new enough: distributions build it with profile-guided optimisation, which pyenv leaves out by
# default, and that makes a quarter of the time of Python code.
PYTHON ?= $(shell /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo /usr/bin/python3 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv || echo .uv/bin/uv)
# Ourselves always anew: what hatch_build.py compiles lies beside the sources, and not in what uv keeps of earlier installs.
INSTALL := $(UV) pip install --quiet --python $(BIN)/python --constraints constraints.txt --reinstall-package postseal
NATIVE := hatch_build.py core/native/Cargo.toml core/native/Cargo.lock $(wildcard core/native/src/*.rs)
# More processes than processors, as half of the time is waiting; who has nothing left to do takes from the others.
PARALLEL := --numprocesses 6 --dist worksteal
# The platform's own certificates, for machines behind a proxy.
export UV_SYSTEM_CERTS := 1

.PHONY: help demo demo-all test check lint unit integration suite matrix bench vectors pin clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# uv makes environments also where Debian's Python lacks venv; it comes through whatever pip there is. With --seed there is a pip inside, too:
# the servers of the integration tests are fetched with it.
.uv/bin/uv:
	python3 -m venv .uv && .uv/bin/python -m pip --quiet --disable-pip-version-check install uv

$(BIN)/python: | $(UV)
	$(UV) venv --quiet --seed --allow-existing --python $(PYTHON) $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	POSTSEAL_NATIVE=0 $(INSTALL) --editable '.[demo]'
	@touch $@

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt $(NATIVE)
	$(INSTALL) --group dev --group bench --editable '.[all]'
	@touch $@ $(VENV)/.demo

demo: $(VENV)/.demo ## sealed messages and attacks on them, on embedded defaults: Kafka, SQS, and more where it is installed
	@$(BIN)/python -m integration.demo

demo-all: $(VENV)/.installed ## the same on all four brokers: installs RabbitMQ and the Service Bus test server
	@$(BIN)/python -m integration.demo --install

check: lint unit ## the quick part, without brokers

lint: $(VENV)/.installed ## format, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check --output-format concise .
	$(BIN)/mypy
	$(BIN)/mypy -p integration.servers -m integration.scan -m integration.capture
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

unit: $(VENV)/.installed ## tests that need no server
	$(BIN)/pytest $(PARALLEL) tests

integration: $(VENV)/.installed ## the same against real servers, which it installs and starts
	$(BIN)/pytest $(PARALLEL) integration

test: $(VENV)/.installed ## everything, side by side
	@$(MAKE) --no-print-directory --jobs lint suite matrix

suite: $(VENV)/.installed
	$(BIN)/pytest $(PARALLEL) tests integration

matrix: $(VENV)/.installed ## the tests of the core on every other CPython, 3.11 to 3.14, that is here
	$(BIN)/python tests/matrix.py

bench: $(VENV)/.installed ## measure, side by side
	$(BIN)/python bench/core.py
	$(BIN)/python bench/keys.py
	$(BIN)/python bench/brokers.py
	$(BIN)/python bench/policy.py
	$(BIN)/python bench/ledger.py

vectors: $(VENV)/.installed ## write tests/vectors/ again from fixed inputs
	$(BIN)/python tests/vectors/make.py

pin: $(UV) ## choose the newest versions that work together, and pin them
	$(UV) pip compile --quiet --upgrade --no-header --no-annotate --universal --python-version 3.11 --all-extras --group dev --group bench pyproject.toml --output-file constraints.txt

clean: ## remove the environments and the servers
	rm -rf $(VENV) .venv-* .uv .servers
