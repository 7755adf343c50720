# Every target creates the virtual environment if it does not exist.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRACKERS := $(VENV)/.trackers
DOCS := $(VENV)/.docs

.PHONY: quickstart test test-all bench lint docs pictures container-test clean

quickstart: $(STAMP)
	$(BIN)/hyperlax sweep-hp-samples --algo-and-network-config tuned.first_sweep \
		--env-config gymnax.cartpole --num-samples 4 --output-root results/quickstart-$$(date +%Y%m%d-%H%M%S)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: $(TRACKERS) $(DOCS)
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(STAMP)
	$(BIN)/python docs/tools/pictures.py

# Builds an image from Debian's packages and trains in it; where there is no Apptainer, root gets one.
container-test: $(STAMP)
	image=$$(mktemp -d) && chmod 755 $$image && sh containers/test.sh $$image \
		&& HYPERLAX_IMAGE=$$image/hyperlax.sif $(BIN)/python -m pytest -n 0 tests/test_slurm_container.py; \
		code=$$?; rm -rf $$image; exit $$code

clean:
	rm -rf $(VENV) site .coverage .pytest_cache .ruff_cache .hypothesis .jax_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

# The trackers are large; only the tests of the exporters need them, and are skipped without.
$(TRACKERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,trackers]"
	touch $(TRACKERS)

# What builds the pages and runs the notebook.
$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	touch $(DOCS)
