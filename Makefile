# Every target makes what it needs: the environment in .venv is made once and reused.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONWARNINGS := ignore::FutureWarning,ignore::DeprecationWarning

# the lower bounds of settings.ini, and for plum-dispatch what fastai's transforms allow by now: with 2.10 no learner can be exported
OLDEST := fastai==2.8.1 torch==2.4.0 torchvision==0.19.0 pandas==2.1.4 plum-dispatch==2.9.0 joblib==1.5.0

.PHONY: demo test test-slow test-oldest docs docs-test export bench gpu clean

$(BIN)/.installed: pyproject.toml settings.ini setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3,10) and "Python 3.10 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

demo: $(BIN)/.installed
	superconv demo

# Notebooks, modules and README in step and clean, rooms that keep their rules; the notebooks' tests, those of the lessons in processes that have defined nothing again; pytest
test: $(BIN)/.installed
	python tests/in_step.py
	python tests/rooms.py
	python docs/build.py --check-readme
	nbdev-test --n-workers 2 --skip-folder-re tutorials
	nbdev-test --n-workers 2 nbs/tutorials
	python -m pytest -q -n 2

test-slow: $(BIN)/.installed
	python -m pytest -q -m slow

# pytest with the oldest versions that settings.ini allows, in an environment of its own
test-oldest:
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install -q $(OLDEST) -e '.[test]'
	.venv-oldest/bin/python -m pytest -q -n 2

docs: $(BIN)/.installed
	python docs/build.py

# Every page of the site that `make docs` built, in a browser: needs chromium and Node.js
docs-test: $(BIN)/.installed
	test -f _docs/index.html || python docs/build.py
	python docs/build.py --test

# Notebooks to modules and README; notebooks cleaned
export: $(BIN)/.installed
	nbdev-export
	nbdev-clean
	python docs/build.py --readme

bench: $(BIN)/.installed
	for f in scheduler imports range_test estimator_cost; do echo "== $$f"; python benchmarks/$$f.py || exit 1; done

# On a GPU of the H200 class, in eight minutes; PYTHON has torch and fastai, SUPERCONV_DATA names the folder of the data sets
gpu:
	$(PYTHON) benchmarks/gpu.py

clean:
	rm -rf .venv .venv-oldest _docs _proc build dist
