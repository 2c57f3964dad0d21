# Targets for contributors and CI; `make help` lists them. PYTHON=... names the interpreter of .venv.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11)
BIN := .venv/bin
LAB := PYTHONPATH=tests:examples $(BIN)/python
# More for pytest, such as PYTEST="-k standby -x".
PYTEST ?=
# Of `make bench`: some of its parts, such as PART="waits many"; --json is for programs.
PART ?=
# Of `make image`: parquet, or nothing.
VARIANT ?=
# Test files are distributed to this many processes, each with its own servers and cluster; 0: one process. They are
# taken in the order of `testpaths`: what needs a cluster late, so that it need not idle, and what is short at the end.
WORKERS ?= 2
# Byte code is kept in .venv, also where the environment forbids it beside the sources: compiling costs each operator
# that a test starts a fifth of a second, and `make test-unit` a third of its time.
PYTESTS = PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX="$(CURDIR)/.venv/bytecode" \
  $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: ## make .venv with the pinned packages and .venv/bin/partwarden
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec "$$python" -I requirements/venv.py $(if $(PYTHON),--this-python); \
	  fi; \
	done; \
	echo "venv: no Python of at least 3.11 among:" $(PYTHONS) >&2; \
	echo "venv: install one, or name it: make venv PYTHON=/path/to/python3.12" >&2; \
	exit 1

.PHONY: demo
demo: venv ## a cluster, a database and a policy: see the operator work
	@$(LAB) -m demo up

.PHONY: demo-down
demo-down: venv ## stop the demo and remove all of it
	@$(LAB) -m demo down

.PHONY: test
test: lint docs ## everything, on real parts
	@$(LAB) -m lab.parts
	$(PYTESTS) $(PYTEST)

.PHONY: lint
lint: venv ## style, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: venv ## build the site of docs/ into build/site; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: reference
reference: venv ## write the generated pages of docs/reference/
	@$(LAB) -m support.reference

.PHONY: test-unit
test-unit: venv ## without servers and clusters, and without tests marked slow: seconds
	$(PYTESTS) tests/unit -m "not slow" $(PYTEST)

.PHONY: test-postgres
test-postgres: venv ## real servers, PostgreSQL 14 to 18; PG_MAJORS=15,18 narrows, PG_MAJORS=every widens
	$(BIN)/pytest tests/postgres $(PYTEST)

.PHONY: test-cluster
test-cluster: venv ## a real API server
	$(BIN)/pytest tests/cluster $(PYTEST)

.PHONY: test-adversary
test-adversary: venv ## attacks on the operator, at a real API server
	$(BIN)/pytest tests/adversary -n $(WORKERS) --dist loadfile $(PYTEST)

.PHONY: test-e2e
test-e2e: venv ## real pods
	$(BIN)/pytest tests/e2e $(PYTEST)

.PHONY: image
image: venv ## build the operator's image and print the path of its archive; VARIANT=parquet: with pyarrow
	@$(LAB) -m lab.image $(VARIANT)

.PHONY: bench
bench: venv ## run the benchmarks and print a table; PART=waits: that alone
	@$(LAB) -m bench $(PART)

.PHONY: lock
lock: venv ## pin the newest fitting versions of all packages in requirements/
	@$(BIN)/python requirements/lock.py

.PHONY: clean
clean: ## remove .venv and the caches of tools in the checkout; ~/.cache/partwarden stays
	rm -rf .venv .venv.lock build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find operator tests examples requirements charts -name __pycache__ -type d -prune -exec rm -rf {} +
