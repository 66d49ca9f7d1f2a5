# Two commands: `make demo` sets up and compares three methods on digits, in a study; `make test` sets up and tests.
# `make test-full` runs also the tests of what a change in one place rarely breaks; `make mutations` puts faults into
# `core`, one after another, and expects tests to fail on each. `make compatibility` and `make release-check` are what a
# release needs besides. `make gpu` takes costs and a study on a GPU, with what
# `make gpu-carry` has gathered where there is a network (`docs/cost.md`).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/pip install --quiet --no-compile --constraint constraints.txt
# On all cores, where pip would take one; a few files are for other Pythons.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

# Of the machine with the GPU: its Python, packages that it lacks, and where records go.
GPU_PYTHON ?= 3.12
GPU_PACKAGES ?= filelock jinja2 pydantic pyyaml rich safetensors threadpoolctl tyro
OUT ?= runs/gpu

.PHONY: demo docs test test-full mutations compatibility release-check examples coverage coverage-libraries gpu gpu-carry lint setup

demo: $(VENV)/.train
	$(BIN)/rdp study recipes/studies/demo.yaml --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: setup lint
	$(BIN)/pytest

test-full: setup lint
	$(BIN)/pytest -m ""

mutations: setup
	$(BIN)/python -m tests.mutations.run -j $$(nproc)

# The documentation site, in build/docs. A warning is an error, and every link between pages has to lead somewhere.
docs: setup
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

# Versions of Python and torch, each in an environment of its own; CELLS="3.12:2.14.1" for one.
compatibility: setup
	$(BIN)/python -m tests.compatibility.run $(CELLS)

# The wheel with torch alone and with each extra; EXTRAS="train export" for some.
release-check: setup
	$(BIN)/python -m tests.release.check $(EXTRAS)

# Of the integrations, less than a minute each; EXAMPLES=examples/NAME.py for one.
EXAMPLES ?= $(wildcard examples/*.py)
examples: setup
	@test -n "$(EXAMPLES)" || { echo "EXAMPLES must name scripts of examples/, got none"; exit 1; }
	set -e; for script in $(EXAMPLES); do echo "$$script"; $(BIN)/python $$script; done

# The libraries whose models `make coverage` skips where they are absent.
coverage-libraries: setup
	$(INSTALL) --requirement tests/zoo/requirements.txt

coverage: setup
	PYTHONPATH=tests $(BIN)/python -m zoo.coverage

gpu:
	$(PYTHON) benchmarks/gpu.py --out $(OUT)

gpu-carry:
	@test -f "$(DATA)/train.parquet" || { echo "DATA must be a folder with train.parquet and test.parquet, got '$(DATA)'"; exit 1; }
	rm -rf build/gpu
	mkdir -p build/gpu/cifar10-jpeg
	cp $(DATA)/*.parquet build/gpu/cifar10-jpeg
	$(PYTHON) -m pip install --quiet --no-compile --no-warn-conflicts --constraint constraints.txt --target build/gpu/site \
		--only-binary=:all: --implementation cp --python-version $(GPU_PYTHON) \
		--platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 $(GPU_PACKAGES)
	git describe --always --abbrev=40 --dirty=+ > build/gpu/commit
	du -sh build/gpu

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

setup: $(VENV)/.dev

$(VENV)/.train: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) torch
	$(INSTALL) --editable '.[train]'
	$(COMPILE)
	touch $@

$(VENV)/.dev: $(VENV)/.train
	$(INSTALL) --editable '.[train,dev]'
	$(COMPILE)
	touch $@
