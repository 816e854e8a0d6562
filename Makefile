# Every target makes what it needs: `make demo` and `make test` work on a fresh checkout.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BINDINGS := .bindings/.prepared
JOBS ?= 2
NETWORKS ?= benchmarks/.envs/networks
DATA ?= benchmarks/.envs/cifar10.npz

.PHONY: demo test bindings check lint types architecture wheel bench bench-accuracy bench-gpu bench-peers coverage clean

# Debian's python3 comes without venv; root can have it installed.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV) || { apt-get install -y python3-venv && $(PYTHON) -m venv $(VENV); }
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(STAMP)  ## the main job on the shipped model and data
	$(BIN)/quantlab run examples/fashion_mnist/resnet.yaml

test: $(STAMP) $(BINDINGS)  ## every test, in parallel, with coverage
	$(BIN)/pytest -n $(JOBS) --dist loadgroup --cov --cov-report=term

bindings: $(BINDINGS)  ## TensorRT's published bindings, for the contract tests; needs gcc

$(BINDINGS): $(STAMP) tests/trt_bindings/prepare.py tests/trt_bindings/releases.py
	$(BIN)/python -m tests.trt_bindings.prepare
	touch $@

check: lint types architecture  ## what the commit hook and CI run before the tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy does not see folders that setuptools maps into the package, so they are linked together.
types: $(STAMP)
	rm -rf .typed && mkdir -p .typed/quantlab
	ln -s $(CURDIR)/quantlab/* .typed/quantlab/
	ln -s $(CURDIR)/calibrators $(CURDIR)/datasets $(CURDIR)/reports .typed/quantlab/
	$(BIN)/mypy .typed/quantlab tests benchmarks

architecture: $(STAMP)
	$(BIN)/pytest -q tests/test_architecture.py

wheel: $(STAMP)  ## build the wheel and test it from outside the checkout
	PYTHON=$(PYTHON) tests/wheel.sh

bench-gpu: $(STAMP)  ## kernels, collecting, deploying and measuring on an NVIDIA GPU
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.deploy

bench-peers: $(STAMP)  ## calibration beside ONNX Runtime and Model-Optimizer, each in its environment
	$(BIN)/python -m benchmarks.peers

bench-accuracy: $(STAMP)  ## INT8 of ordinary and hard networks, beside the peers
	$(BIN)/python -m benchmarks.accuracy --nets $(NETWORKS) --data $(DATA)

bench: $(STAMP)  ## speed and memory, as ratios in one run
	$(BIN)/python -m benchmarks.bench

clean:
	rm -rf $(VENV) .bindings .typed build dist runs .pytest_cache .mypy_cache .ruff_cache .coverage*
