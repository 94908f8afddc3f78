# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXAMPLE := examples/mixed-vendor/capacity.yaml

.PHONY: help setup demo test test-slow lint engine profile-cpu closed-loop benchmarks clean

help:
	@echo "make demo         plan examples/mixed-vendor, write out/plan.json and out/deploy/"
	@echo "make test         the default tests"
	@echo "make test-slow    tests with a real vLLM engine and with shared measurements"
	@echo "make profile-cpu  install the pinned CPU engine and profile a small model on this machine"
	@echo "make closed-loop  the same, then vllm serve under three loads beside the simulator"
	@echo "make benchmarks   every benchmark, one JSON line each"

setup: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@echo "compiling the simulator's event loop (once)"
	$(BIN)/moai-plan simulate --bench --model meta-llama/Llama-3.1-8B-Instruct --on h100_sxm --num-prompts 8 >/dev/null
	touch $(STAMP)

demo: setup
	mkdir -p out
	$(BIN)/moai-plan solve $(EXAMPLE) --out out/plan.json
	$(BIN)/moai-plan emit out/plan.json --target bash --out out/deploy --force

test: setup
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

engine:
	bash engine/install.sh .venv-engine

profile-cpu: engine
	.venv-engine/bin/moai-plan profile --model dense-100m --accelerator cpu --budget 2m --out out/measured --replace

closed-loop: engine
	.venv-engine/bin/moai-plan profile --model dense-100m --accelerator cpu --budget 1m --out out/measured --serve

test-slow: setup engine
	.venv-engine/bin/python -m pytest -m engine
	$(BIN)/python -m pytest -m shared

benchmarks: setup
	for file in cli_start estimate solve simulate; do $(BIN)/python benchmarks/$$file.py || exit 1; done

clean:
	rm -rf $(VENV) .venv-engine out
