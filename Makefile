# Works with Python 3.11 or newer and make; the first target that needs an environment makes .venv.

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
READY := $(VENV)/.ready
# 3.11 first: it is what the lock is tested with.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
STAGES := tests/e2e tests/real tests/browser
# Files of tests side by side, each in one process: most of a test is waiting or one core's work. One start
# for all: each process imports pandas, MLflow and Prefect anew, which takes as long as a hundred tests.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile
ARGS ?=

# The caller's profiles and credentials stay out, unless they are meant: with a bucket named.
FOREIGN := $(filter PREFECT_%,$(.VARIABLES))
ifeq ($(MLTRACK_S3_BUCKET)$(MLTRACK_TEST_S3_BUCKET),)
FOREIGN += $(filter-out AWS_CA_BUNDLE,$(filter AWS_%,$(.VARIABLES)))
endif
ifneq ($(strip $(FOREIGN)),)
unexport $(FOREIGN)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test e2e browser check bench lock versions install clean

help: ## show this list
	@sed -n 's/^\([a-z0-9]*\):[^#]*## \(.*\)/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		while IFS='|' read -r name what; do printf 'make %-9s %s\n' "$$name" "$$what"; done

demo: $(READY) ## the main job on an S3 inside the process, nothing to configure
	$(BIN)/python examples/s3_integration_demo.py $(ARGS)

test: $(READY) ## the tests; ARGS="-k name" is passed on to pytest
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) tests $(addprefix --ignore=,$(STAGES)) $(ARGS)

e2e: $(READY) ## the end-to-end tests: the demo, the examples, a Prefect server
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/e2e $(ARGS)

browser: $(READY) ## the tests of Prefect's UI with its forms and reports, in Chromium, which it installs
	scripts/ci_browser.sh
	$(BIN)/python -m pytest tests/browser $(ARGS)

check: $(READY) ## ruff, mypy, and linters of the image and the compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint deployments/Dockerfile
	$(BIN)/compose-lint --quiet deployments/compose.yaml

bench: $(READY) ## the benchmarks, each beside its bar
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(READY) ## resolve the newest versions into requirements-dev.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--extra dev --extra mlflow --extra sql --extra scan --extra dask \
		--no-header --no-annotate --no-emit-index-url pyproject.toml --output-file $(LOCK)

versions: $(READY) ## try the lowest and the newest dependencies that pyproject.toml allows
	$(BIN)/python scripts/check_versions.py $(ARGS)

install: $(READY) ## make .venv, or bring it up to date
	@echo 'ready: . $(BIN)/activate'

clean: ## remove .venv and what tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): pyproject.toml $(LOCK) scripts/bootstrap.sh
	@PYTHON='$(PYTHON)' sh scripts/bootstrap.sh '$(VENV)' '$(LOCK)'
	@touch $@
