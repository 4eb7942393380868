# Everything is installed into .venv (and .venv-stock) beside this file; nothing else on the machine is changed.
#   make demo                     train a small network, compare argmax with RankSEG in three toolkits
#   make demo DATA=DIR            the same on img_dir/{train,val} and ann_dir/{train,val} in DIR
#   make test                     run the tests
PYTHON ?= python3
VENV := .venv
VENV_STOCK := .venv-stock
VENV_OLDEST := .venv-oldest
EXTRAS := torchmetrics lightning mmseg transformers monai nnunet smp torchgeo onnx report
OUT ?= demo_output
DATA ?=
NUM_CLASSES ?=

# On a busy machine, threads that spin for long while they wait slow each other down many times.
export GOMP_SPINCOUNT ?= 2000

# A process for each core, with one thread each: threads of several would wait for each other.
ON_ALL_CORES := -n auto --dist worksteal
INSTALL := -m pip install --quiet --disable-pip-version-check
DEMO_OPTIONS = --out "$(OUT)" $(if $(DATA),--data "$(DATA)") $(if $(NUM_CLASSES),--num-classes "$(NUM_CLASSES)")

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-exhaustive test-stock test-oldest test-extras benchmark docs lint clean

help:  ## say what there is
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/installed  ## install the package and all pinned tools into .venv

demo: $(VENV)/installed  ## argmax against RankSEG in three toolkits; DATA=DIR, NUM_CLASSES=N for your own images
	@$(VENV)/bin/python -m examples.demo $(DEMO_OPTIONS)

test: $(VENV)/installed  ## run the tests, on all cores
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(ON_ALL_CORES)

test-exhaustive: $(VENV)/installed  ## run the long sweeps that `make test` leaves out
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(ON_ALL_CORES) -m exhaustive tests

test-stock: $(VENV_STOCK)/installed  ## run MMSegmentation's tests with the original OpenMMLab packages
	TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 OMP_NUM_THREADS=1 $(VENV_STOCK)/bin/python -m pytest $(ON_ALL_CORES) tests/mmseg

test-oldest: $(VENV_OLDEST)/installed  ## run TorchMetrics' tests with the oldest TorchMetrics that is allowed
	$(VENV_OLDEST)/bin/python -m pytest tests/torchmetrics

test-extras: $(EXTRAS:%=test-extra-%)  ## run the tests of every extra, each in an environment with nothing but what it names

test-extra-%: .venv-extra-%/installed
	OMP_NUM_THREADS=1 .venv-extra-$*/bin/python -m pytest $(ON_ALL_CORES) $(or $(TESTS_$*),tests/$* rankseg_plugins/$*)

TESTS_smp := tests/examples/test_smp.py
TESTS_torchgeo := tests/examples/test_torchgeo.py
TESTS_onnx := tests/core/test_onnx.py
TESTS_report := tests/cli tests/report tests/files

benchmark: $(VENV)/installed  ## measure time and memory, write benchmarks/RESULTS.md; about an hour
	env -u GOMP_SPINCOUNT -u OMP_NUM_THREADS $(VENV)/bin/python -m benchmarks

docs: $(VENV)/installed  ## make the site, in site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

lint: $(VENV)/installed  ## check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:  ## remove what was installed and written here
	rm -rf $(VENV) $(VENV_STOCK) $(VENV_OLDEST) .venv-extra-* demo_output site .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamp is written last, so that an installation that was cut off is done again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(call make_venv,$(VENV))
	@$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV_STOCK)/installed: pyproject.toml constraints-stock.txt
	@$(call make_venv,$(VENV_STOCK))
	@$(VENV_STOCK)/bin/python $(INSTALL) -c constraints-stock.txt 'setuptools<82' mmcv-lite -e '.[mmseg-stock]' pytest pytest-xdist
	@touch $@

$(VENV_OLDEST)/installed: pyproject.toml constraints.txt constraints-oldest.txt
	@$(call make_venv,$(VENV_OLDEST))
	@sed '/^torchmetrics==/d' constraints.txt > $(VENV_OLDEST)/constraints.txt
	@$(VENV_OLDEST)/bin/python $(INSTALL) -c $(VENV_OLDEST)/constraints.txt -c constraints-oldest.txt \
		-e '.[torchmetrics]' matplotlib pytest scipy
	@touch $@

.PRECIOUS: .venv-extra-%/installed
.venv-extra-%/installed: pyproject.toml constraints.txt
	@$(call make_venv,.venv-extra-$*)
	@.venv-extra-$*/bin/python $(INSTALL) -c constraints.txt -e '.[$*]' pytest pytest-xdist
	@touch $@

define make_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed; say which one: make PYTHON=python3.11 ..." >&2; exit 1; }; \
echo "Installing into $(1) (once, some minutes) ..."; \
$(PYTHON) -m venv $(1)
endef
