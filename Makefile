# Two commands do everything: `make demo` and `make test`. Both make their own virtual environment first.
PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000
DEMO   ?= demo
CLICKS ?=
SET    ?=
CORPUS   ?= $(DEMO)/corpus
ARTIFACT ?= $(DEMO)/artifacts
BIN    := $(VENV)/bin
RECIPE := $(if $(CLICKS),default,demo)

.PHONY: help install demo test check bench soak smoke audit sbom clean

help:
	@echo "make demo               simulate clicks, train, evaluate, serve on port $(PORT)"
	@echo "make demo CLICKS=my.csv the same on your log (columns session_id,item_id,timestamp; see README)"
	@echo "make test               lint, types and every test, with a real Redis"
	@echo "make check              lint and types only"
	@echo "make bench              benchmarks, on what make demo left or CORPUS= and ARTIFACT=; each ends in one JSON line"
	@echo "make audit              known vulnerabilities of the pinned packages; needs the internet"
	@echo "make sbom               build/sbom.json: what the serve image installs, in CycloneDX"
	@echo "make soak               ten minutes of faults under clicks, on the same artifact: what each costs, and memory"
	@echo "make smoke              the containers, for real: build, start, break, replace, swap (docker or podman)"

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "srgnn needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,serve,export,otel,ann,dev,audit]'
	$(BIN)/python -m srgnn.precompile
	@touch $@

# A finished demo is never reused: the log may have changed. `make demo` after Ctrl-C simply begins again.
demo: install
	rm -rf $(DEMO)
	$(BIN)/srgnn prepare --config $(RECIPE) $(if $(CLICKS),--input $(CLICKS)) --output $(DEMO)/corpus $(SET)
	$(BIN)/srgnn train --config $(RECIPE) --corpus $(DEMO)/corpus --output $(DEMO)/artifacts $(SET)
	$(BIN)/srgnn evaluate $(DEMO)/artifacts --corpus $(DEMO)/corpus --baselines --report $(DEMO)/report
	@echo
	@echo "The report: $(DEMO)/report/index.html"
	@echo "Serving on port $(PORT). In another terminal:"
	@echo "  curl -s localhost:$(PORT)/sessions/me/click -H 'content-type: application/json' \\"
	@$(BIN)/python -c 'import json,sys; print("    -d \x27" + json.dumps({"item_id": open(sys.argv[1], encoding="utf-8").readline()[:-1], "k": 5}).replace("\x27", "\\u0027") + "\x27")' $(DEMO)/corpus/vocabulary.txt
	@echo "API documentation: http://localhost:$(PORT)/docs   Stop with Ctrl-C."
	@echo
	$(BIN)/srgnn serve --artifact $(DEMO)/artifacts --port $(PORT)

test: check
	$(BIN)/python -m pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.catalogue
	$(BIN)/python -m benchmarks.load --corpus $(CORPUS) --artifact $(ARTIFACT) --rate 500 --rate 1000 --bulk

soak: install
	$(BIN)/python -m benchmarks.soak --artifact $(ARTIFACT) --seconds 600

smoke:
	deploy/smoke.sh

# strict: a package that the database does not know is an error, not a package without faults.
audit: install
	$(BIN)/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints.txt

# An environment that holds what the serve image does and nothing else; cyclonedx-py does not read a dynamic version.
sbom: install
	rm -rf build/serve && $(PYTHON) -m venv --without-pip build/serve
	$(BIN)/pip --python build/serve/bin/python install --quiet --disable-pip-version-check -c constraints.txt '.[serve,otel]'
	sed "s/^dynamic = .*/version = \"$$(build/serve/bin/python -c 'import srgnn; print(srgnn.__version__)')\"/" \
		pyproject.toml > build/pyproject.toml
	$(BIN)/cyclonedx-py environment --pyproject build/pyproject.toml --output-reproducible -o build/sbom.json \
		build/serve/bin/python
	@echo build/sbom.json

clean:
	rm -rf $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
