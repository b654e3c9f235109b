# Every target makes its own environment first, so each works on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The platform's own certificates, for machines behind a proxy.
export UV_SYSTEM_CERTS := 1

.PHONY: help demo test check lint unit integration bench vectors clean

help: ## what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --quiet install uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints constraints.txt --group dev --group bench --editable '.[all]'
	touch $@

demo: $(STAMP) ## sealed messages through Kafka and SQS on embedded defaults
	$(BIN)/postseal demo

check: $(STAMP) lint unit ## the quick part, without brokers

lint: $(STAMP) ## format, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

unit: $(STAMP) ## tests that need no server
	$(BIN)/pytest tests

integration: $(STAMP) ## the same against real servers, which it installs and starts
	$(BIN)/pytest integration

test: $(STAMP) lint ## everything
	$(BIN)/pytest tests integration

bench: $(STAMP) ## measure, side by side
	$(BIN)/python bench/core.py

vectors: $(STAMP) ## write tests/vectors/ again from fixed inputs
	$(BIN)/python tests/vectors/make.py

clean: ## remove the environment and the servers
	rm -rf $(VENV) .servers
