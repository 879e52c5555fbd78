# make demo   the demo corpus -> out/demo, a dataset of codes, with a local Ray
# make test   lint, types and the whole test suite
# make fast   the tests that start no other process: no Ray, no server, no browser
# Each sets up .venv once, from constraints.txt, and needs only Python 3.10+ and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
BROWSER := $(BIN)/chromium

# Ray's own telemetry stays off: a demo and a test have no business on the network.
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: demo test fast check soak setup lock clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else "moss-tok needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] + ": choose another with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time: torch with CUDA is about 3 GB)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/moss-tok tokenize configs/demo.yaml

# Three files at a time on two cores: some tests wait for a process that was killed, or for a store that went away.
test: check $(BROWSER)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --durations 15

fast: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m 'not slow'

# A headless Chromium for the tests of the report; about 100 MB, and no root.
$(BROWSER): | $(READY)
	$(BIN)/python scripts/install_browser.py

# Kills at random moments and mutated inputs, for MINUTES, or until KILLS processes were killed: make soak KILLS=1000
MINUTES ?= 10
KILLS ?=
soak: $(READY)
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(KILLS),--kills $(KILLS))

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Rewrites constraints.txt with the newest versions that pyproject.toml allows, for every Python from 3.10.
lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --universal --python-version 3.10 --all-extras --no-annotate --custom-compile-command 'make lock' --output-file constraints.txt --upgrade pyproject.toml

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
