# One source of commands: the README, CI and people call these targets and no others.
# PYTHON=python3.12 chooses an interpreter; pip's own variables (PIP_EXTRA_INDEX_URL ...) work as always.

VENV := .venv
BIN  := $(VENV)/bin
PIP  := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
SAY  := @printf 'quantgate: %s\n'

# processes of `make test`, each of one thread; some gigabytes of memory each. WORKERS=0 runs the tests in pytest's own
CORES   := $(shell nproc)
WORKERS := $(if $(filter 1 2 3 4 5 6 7 8,$(CORES)),$(CORES),8)

export PYTHONUTF8 = 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test llama extras schema-suite check bench bench-peers docs format clean

help:
	@printf '%s\n' 'make demo    set up, then run the main job on the built-in model and write a report' \
	               'make test    set up, then run the tests, in as many processes as there are cores' \
	               'make llama   compile llama.cpp for GGUF variants and the tests that run it (some minutes, a C++ compiler)' \
	               'make extras  what the tests of optional parts need: lm-eval, Ray, S3, model servers, PostgreSQL, clients, browser' \
	               'make schema-suite  the cases of the JSON Schema Test Suite, for the tests of the guard' \
	               'make check   formatting, lint, types, the floors' \
	               'make bench   the speed table' \
	               'make bench-peers  quality, time, memory and the gateway beside other programs, each in an environment of its own' \
	               'make docs    the documentation site, in site/' \
	               'make format  let ruff rewrite the sources' \
	               'make clean   remove what was built; runs/ and $(VENV) stay'

demo: $(VENV)/.ready-run
	@$(BIN)/quantgate demo

test: $(VENV)/.ready-dev
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

llama: $(VENV)/.ready-llama

extras: $(VENV)/.ready-extras

schema-suite: build/schema-suite

check: $(VENV)/.ready-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.ready-dev
	@$(BIN)/python -m benchmarks

bench-peers: $(VENV)/.ready-dev
	@$(BIN)/python -m benchmarks peers gguf gateway

docs: $(VENV)/.ready-docs
	@$(BIN)/python docs/generate.py
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(SAY) 'the site is in site/index.html'

format: $(VENV)/.ready-dev
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

clean:
	@rm -rf build dist site .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
	@find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# the suite lies in the source package of jsonschema, whose version constraints.txt pins
build/schema-suite: | $(VENV)/.created
	@mkdir -p build && $(PIP) download --no-deps --no-binary jsonschema -d build -c constraints.txt jsonschema
	@mkdir -p $@.partial && tar -xzf build/jsonschema-*.tar.gz -C $@.partial --strip-components=2 --wildcards '*/json/tests'
	@mv $@.partial $@
	$(SAY) 'the JSON Schema Test Suite is in build/schema-suite'

# The environment. Each stamp stands for one finished step, so a later call costs nothing and a broken one goes on.

$(VENV)/.created:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "quantgate: no Python 3.11 or newer among: $(or $(PYTHON),python3 python3.11 ... python3.14);" \
	    "install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "quantgate: creating $(VENV) with $$("$$found" -V) (a few minutes, once)"; \
	if ! "$$found" -m venv $(VENV) >/dev/null; then \
	  echo "quantgate: $$found cannot create a virtual environment;" \
	    "install its venv module (Debian and Ubuntu: apt-get install python3-venv) and run again" >&2; exit 1; \
	fi
	@touch $@

# torch alone and by its exact version: where a machine offers the CPU build of that version, pip takes it
$(VENV)/.ready-run: pyproject.toml constraints.txt | $(VENV)/.created
	$(SAY) 'installing torch'
	@$(PIP) install $$(grep '^torch==' constraints.txt)
	$(SAY) 'installing quantgate'
	@$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready-run
	$(SAY) 'installing the test tools'
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.ready-llama: $(VENV)/.ready-dev
	$(SAY) 'compiling llama.cpp (some minutes, once)'
	@CMAKE_BUILD_PARALLEL_LEVEL=$$(nproc) $(PIP) install -c constraints.txt -e '.[gguf]'
	@touch $@

$(VENV)/.ready-extras: $(VENV)/.ready-dev
	$(SAY) 'installing lm-eval, Ray, S3, model servers, PostgreSQL, clients of the gateway and a driver of Chromium'
	@$(PIP) install -c constraints.txt -e '.[hub,lm-eval,ray,s3,s3-tests,servers,postgres,sign,mlflow,otel,clients,browser]'
	@touch $@

$(VENV)/.ready-docs: $(VENV)/.ready-run
	$(SAY) 'installing the documentation tools'
	@$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@
