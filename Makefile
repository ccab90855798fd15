# Every target sets up .venv by itself; it needs Python >= 3.10, make and a package index.
# `make demo PYTHON=python3.12` chooses the Python that .venv is made with.

PYTHON ?= python3
JOBS ?= 2
LENGTHS ?= 1000,4000,7900
RUNS ?= 5
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo docs test check test-slow test-real test-serve test-gpu test-ray bench bench-gpu bench-peers bench-kvpress film maze format clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)  ## read a long document with and without eviction, ask the same questions, compare (SmolLM2, 93 MB)
	@$(BIN)/python -m examples.demo

test: check  ## ruff, mypy and the tests that need no GPU and little time (what CI runs)
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: $(READY)  ## the tests that take minutes
	$(BIN)/python -m pytest -m "(slow or long) and not gpu"

test-real: $(READY)  ## the tests on real models, which are pulled first: SmolLM2 (93 MB), Qwen2.5-Coder 0.5B (478 MB), Gemma 3 (238 MB)
	for model in smollm2-135m qwen2.5-coder-0.5b gemma3-270m; do $(BIN)/namm-llm models pull $$model >/dev/null || exit 1; done
	$(BIN)/python -m pytest -m real --durations 15

test-serve: $(READY) .venv-clients/.ready  ## the clients that people have, and the page in Chromium, against `namm-llm serve` (SmolLM2, 93 MB)
	$(BIN)/namm-llm models pull smollm2-135m >/dev/null
	NAMM_LLM_SERVED=$$($(BIN)/namm-llm models path smollm2-135m) $(BIN)/python -m pytest -m serve tests/serve

test-gpu: $(READY)  ## the tests that need a CUDA device
	$(BIN)/python -m pytest -m "gpu and not slow"

test-ray: $(READY)  ## two replicas on Ray Serve, one of them killed (installs Ray)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ray]' --constraint constraints.txt
	$(BIN)/python -m pytest -m ray --durations 5

bench-gpu: $(READY)  ## on a GPU: kernels against their definitions, then speed and memory of an 8B in nf4
	$(BIN)/python -m pytest -m "gpu and not slow" tests/attention/triton
	$(BIN)/python -m namm_lab.reports gpu

bench: $(READY) .venv-peers/.ready  ## measure speed and memory on this machine, kvpress beside (50 minutes; make bench MINUTES=35 AGAIN=prefill)
	$(BIN)/python -m namm_lab.reports speed $(if $(MINUTES),--minutes $(MINUTES)) $(foreach name,$(AGAIN),--again $(name))
	$(BIN)/python -m namm_lab.reports report

bench-peers: $(READY) .venv-llama.cpp/.ready .venv-openvino/.ready  ## beside llama.cpp, OpenVINO and transformers on one GGUF file (make bench-peers MODEL=FILE.gguf BOOK=book.txt)
	$(if $(MODEL),,$(BIN)/namm-llm models pull smollm2-135m >/dev/null)
	$(BIN)/namm-llm bench --model $(or $(MODEL),$$($(BIN)/namm-llm models path smollm2-135m)) --peers llama.cpp,openvino,transformers \
		--texts $(or $(BOOK),documentation) --lengths $(LENGTHS) --policies full,replay --budgets 0.25,2048 --runs $(RUNS) --json benchmarks/results/gguf.jsonl
	$(BIN)/python -m namm_lab.reports report

bench-kvpress: $(READY) .venv-peers/.ready  ## the same beside kvpress, which has an environment of its own
	$(BIN)/python -m namm_lab.reports peers
	$(BIN)/python -m namm_lab.reports report

.venv-%/.ready: namm_lab/bench/peers/requirements-%.txt
	@test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	@echo "Installing $* (llama.cpp is compiled for this CPU, which can take 20 minutes) ..."
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.venv-peers/.ready: namm_lab/reports/peers/requirements.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints.txt
	@.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --requirement namm_lab/reports/peers/requirements.txt
	@touch $@

.venv-clients/.ready: tests/serve/requirements.txt
	@test -x .venv-clients/bin/python || $(PYTHON) -m venv .venv-clients
	@.venv-clients/bin/python -m pip install --quiet --disable-pip-version-check --requirement tests/serve/requirements.txt
	@touch $@

film: $(READY)  ## train a tiny LLaVA on films of digits (five minutes), then compare policies by its answers
	$(BIN)/python -m namm_lab.film --out llava-tiny

maze: $(READY)  ## train a Decision Transformer in a T-maze and in CartPole (ten minutes), then compare policies by their returns
	$(BIN)/python -m namm_lab.decision table

docs: $(READY)  ## build the documentation as a site in site/, strictly
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]' --constraint constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(READY)  ## sort imports and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, builds and caches
	rm -rf .venv .venv-peers .venv-clients .venv-llama.cpp .venv-openvino site build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first and alone: a CPU build that the index offers for the pinned version is then kept.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0])'
	@echo "Setting up .venv (once; torch is large, this can take some minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	@touch $@
