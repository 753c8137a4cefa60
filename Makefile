# make setup   a virtual environment with everything, in .venv
# make demo    people are drawn, posed, packed, trained on and measured; ends in demo-output/report/report.html
# make test    the tests
# make lint    ruff and mypy

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OPENPIFPAF := openpifpaf==0.13.11

DEMO := demo-output
LAYOUT := mars
IDENTITIES := 96

.PHONY: setup openpifpaf demo test lint clean
.NOTPARALLEL:

setup: $(READY)

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Error: $$($(PYTHON) --version) found; expected Python 3.10 or later; try make PYTHON=python3.11 setup" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt setuptools wheel ninja torch
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e .[dev]
	$(MAKE) --no-print-directory openpifpaf
	touch $@

# openpifpaf's metadata pins torch 1.13, so that no ordinary extra can name it; it builds from source against the torch
# that is there, and a wheel from pip's cache may have been built against another one.
openpifpaf:
	@command -v c++ >/dev/null || { echo "Error: no C++ compiler found; expected c++, which openpifpaf's decoder is built with; install g++ or clang" >&2; exit 1; }
	$(BIN)/python -m pip install -q -c constraints.txt pysparkling python-json-logger importlib_metadata
	$(BIN)/python -c 'import openpifpaf' 2>/dev/null || \
	  $(BIN)/python -m pip install -q --no-deps --no-build-isolation $(OPENPIFPAF)

demo: setup
	rm -rf $(DEMO)
	$(BIN)/keyreid-prep synthesize $(DEMO)/people --layout $(LAYOUT) --identities $(IDENTITIES) --seed 1
	$(BIN)/keyreid-prep index $(LAYOUT) $(DEMO)/people $(DEMO)/prepared --frames-per-shard 512
	$(BIN)/keyreid-prep extract-keypoints $(DEMO)/prepared --checkpoint synthetic --workers 2
	$(BIN)/keyreid-prep build-shards $(DEMO)/prepared --workers 2
	$(BIN)/keyreid-train $(DEMO)/prepared --out $(DEMO)/run --preset demo
	$(BIN)/keyreid-eval $(DEMO)/run $(DEMO)/prepared --baselines --report $(DEMO)/report
	@echo "Look at the rankings: $(DEMO)/report/report.html"

test: setup
	-tests/fetch_browser.sh $(VENV)/browser  # without a browser, the tests of pages are skipped
	$(BIN)/python -m pytest -q

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	@mkdir -p $(VENV)/typing/keyreid  # mypy follows folders, not setup.cfg's package_dir
	@for folder in pipeline model cli; do ln -sfn "$(CURDIR)/$$folder" $(VENV)/typing/keyreid/$$folder; done
	cd $(VENV)/typing && ../bin/mypy --config-file ../../pyproject.toml -p keyreid.pipeline -p keyreid.model -p keyreid.cli

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
