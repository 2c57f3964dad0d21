# Targets for people and for CI; `make help` lists them. PYTHON=... names the interpreter that .venv is made with.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11)
LAB := PYTHONPATH=tests .venv/bin/python

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: ## make .venv with the pinned packages and .venv/bin/partwarden
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    exec "$$python" -I requirements/venv.py; \
	  fi; \
	done; \
	echo "venv: no Python of at least 3.11 among:" $(PYTHONS) >&2; \
	echo "venv: install one, or name it: make venv PYTHON=/path/to/python3.12" >&2; \
	exit 1
