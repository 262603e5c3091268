# Two environments: .venv has the newest torch and every extra, .venv-core has no extra and an older
# torch. Each is made once and again only when pyproject.toml changes.

PYTHON     ?= python3
CORE_TORCH ?= torch==2.13.0
PYTEST     := -m pytest -n 2 --dist worksteal
PYTEST_ARGS ?=

# Two busy thread pools on two cores make LAPACK hundreds of times slower.
export OMP_NUM_THREADS      ?= 1
export MKL_NUM_THREADS      ?= 1
export OPENBLAS_NUM_THREADS ?= 1

FULL := .venv/.installed
CORE := .venv-core/.installed
PY   := .venv/bin/python

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: demo test test-full test-core lint format docs data study bench clean help python-version

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:[^#]*## /\t/' | expand -t 14

demo: $(FULL)  ## learn the symmetries of a small CNN on built-in data; writes build/demo/
	mkdir -p build/demo
	.venv/bin/symlearn demo --out build/demo

test: test-full test-core  ## run the tests, with every extra and again with none

test-full: $(FULL)
	SYMLEARN_REQUIRE_EXTRAS=1 $(PY) $(PYTEST) $(PYTEST_ARGS)

test-core: $(CORE)
	.venv-core/bin/python $(PYTEST) -m "(core or core_only) and not slow" $(PYTEST_ARGS) tests

lint: $(FULL)  ## check style, format and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: $(FULL)  ## rewrite the code in the project's style
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: $(FULL)  ## build the documentation into build/site/
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

data:  ## fetch MNIST and Fashion-MNIST into data/
	bash tools/fetch_data.sh data

study: $(FULL) data  ## run the slow tests and every benchmarks/study_*.py
	@rc=0; SYMLEARN_REQUIRE_EXTRAS=1 $(PY) -m pytest -m "slow and not core_only" $(PYTEST_ARGS) || rc=$$?; \
	if [ $$rc -eq 5 ]; then echo "study: no test is marked slow"; elif [ $$rc -ne 0 ]; then exit $$rc; fi
	@$(call run_each,$(wildcard benchmarks/study_*.py))

bench: $(FULL)  ## measure every claim of benchmarks/*.py, studies left out
	@$(call run_each,$(filter-out benchmarks/__init__.py benchmarks/study_%,$(wildcard benchmarks/*.py)))

clean:  ## remove both environments and everything built; keeps data/
	rm -rf .venv .venv-core build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find symlearn curvature priors tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# $(1): files, run one after the other. Stops at the first that fails.
define run_each
set -e; for f in $(sort $(1)); do echo "== $$f"; $(PY) "$$f"; done
endef

python-version:
	@command -v $(PYTHON) >/dev/null || { echo "no '$(PYTHON)' here: install Python 3.10 or later, or say make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and "symlearn needs Python 3.10 or later; $(PYTHON) is %d.%d: say make PYTHON=..." % v[:2])'

$(FULL): pyproject.toml | python-version
	[ -x .venv/bin/python ] || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --editable '.[laplace,vision,export,ode,tensorboard,completion,dev,docs]'
	touch $@

$(CORE): pyproject.toml | python-version
	[ -x .venv-core/bin/python ] || $(PYTHON) -m venv .venv-core
	.venv-core/bin/python -m pip install --quiet '$(CORE_TORCH)' --editable '.[test]'
	touch $@
