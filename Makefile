# Everything is installed into .venv, and for some tests .venv-*, beside this file; nothing else on the machine is changed.
#   make demo                     train a small network, compare argmax with RankSEG in three toolkits
#   make demo DATA=DIR            the same on img_dir/{train,val} and ann_dir/{train,val} in DIR
#   make test                     run the tests
PYTHON ?= python3
VENV := .venv
VENV_STOCK := .venv-stock
VENV_OLDEST := .venv-oldest
VENV_RELEASE := .venv-release
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
.PHONY: help setup demo test test-exhaustive test-stock test-oldest test-extras test-torchvision coverage benchmark docs lint release clean

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

test-oldest: $(VENV_OLDEST)/installed  ## run a choice of the tests with the oldest versions that are allowed
	OMP_NUM_THREADS=1 $(VENV_OLDEST)/bin/python -m pytest $(ON_ALL_CORES) $(TESTS_oldest)

test-extras: $(EXTRAS:%=test-extra-%) test-torchvision  ## run the tests of every extra, each with nothing but the wheel and what it asks for

# The tests are those of the source distribution, with the installed package in the place of the one that it holds.
test-extra-%: .venv-extra-%/installed dist/built
	@rm -rf .venv-extra-$*/source && mkdir .venv-extra-$*/source
	@tar -xzf dist/*.tar.gz -C .venv-extra-$*/source --strip-components 1
	@rm -r .venv-extra-$*/source/rankseg_plugins
	@.venv-extra-$*/bin/python $(INSTALL) --force-reinstall --no-deps dist/*.whl
	@.venv-extra-$*/bin/python -m pip check --disable-pip-version-check
	@.venv-extra-$*/bin/python -P -c 'import os, sys, rankseg_plugins as found; \
		folder = os.path.dirname(found.__file__); assert folder.startswith(sys.prefix), folder; \
		os.symlink(folder, ".venv-extra-$*/source/rankseg_plugins")'
	cd .venv-extra-$*/source && OMP_NUM_THREADS=1 ../bin/python -m pytest $(ON_ALL_CORES) \
		$(or $(TESTS_$*),tests/$* rankseg_plugins/$*)

# Not named by the extra, as its build must be that of torch: what most image processors of Transformers stand on.
test-torchvision: .venv-torchvision/installed  ## run the tests of Transformers beside torchvision
	OMP_NUM_THREADS=1 .venv-torchvision/bin/python -m pytest $(ON_ALL_CORES) tests/transformers

TESTS_nnunet := tests/nnunet rankseg_plugins/nnunet tests/test_adapters_agree.py
TESTS_smp := tests/examples/test_smp.py
TESTS_torchgeo := tests/examples/test_torchgeo.py
# Not what becomes a graph: PyTorch's exporter and compiler took it only later.
TESTS_oldest := $(addprefix tests/,core/test_decoder.py core/test_rma.py core/solvers/test_rankdice.py \
	core/presence/test_rule.py scores calibration/test_tuned.py torchmetrics lightning/test_lightning_steps.py \
	transformers cli/test_decode.py report/test_charts.py files/decoding)
TESTS_onnx := tests/core/test_onnx.py
TESTS_report := tests/cli tests/report tests/files

coverage: $(VENV)/installed  ## print which lines and branches of core and scores no test reaches; kernels, which are compiled, left out
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest $(ON_ALL_CORES) \
		--cov=rankseg_plugins/core --cov=rankseg_plugins/scores --cov-branch --cov-report=term-missing:skip-covered

benchmark: $(VENV)/installed  ## measure time and memory, write benchmarks/RESULTS.md; about an hour
	env -u GOMP_SPINCOUNT -u OMP_NUM_THREADS $(VENV)/bin/python -m benchmarks

docs: $(VENV)/installed  ## make the site, in site/; a link that leads nowhere fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

lint: $(VENV)/installed  ## check style, types and spelling
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	git ls-files -z | xargs -0 $(VENV)/bin/codespell

release: dist/built  ## build what a package index takes, check it, and print how to upload it
	@$(VENV_RELEASE)/bin/twine check --strict dist/*.whl dist/*.tar.gz
	@$(VENV_RELEASE)/bin/cffconvert --validate
	@echo "Nothing is uploaded yet; that is: $(VENV_RELEASE)/bin/twine upload $$(echo dist/*.whl dist/*.tar.gz)"

clean:  ## remove what was installed and written here
	rm -rf $(VENV) $(VENV_STOCK) $(VENV_OLDEST) $(VENV_RELEASE) .venv-extra-* .venv-torchvision dist demo_output site .pytest_cache .mypy_cache \
		.ruff_cache .hypothesis .coverage

# The stamp is written last, so that an installation that was cut off is done again.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(call make_venv,$(VENV))
	@$(VENV)/bin/python $(INSTALL) -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV_STOCK)/installed: pyproject.toml constraints-stock.txt
	@$(call make_venv,$(VENV_STOCK))
	@$(VENV_STOCK)/bin/python $(INSTALL) -c constraints-stock.txt 'setuptools<82' mmcv-lite -e '.[mmseg-stock]' pytest pytest-xdist
	@touch $@

$(VENV_OLDEST)/installed: pyproject.toml constraints-oldest.txt
	@$(call make_venv,$(VENV_OLDEST))
	@$(VENV_OLDEST)/bin/python $(INSTALL) -c constraints-oldest.txt \
		-e '.[torchmetrics,lightning,transformers,onnx,report]' hypothesis pytest pytest-xdist
	@touch $@

$(VENV_RELEASE)/installed: constraints-release.txt
	@$(call make_venv,$(VENV_RELEASE))
	@$(VENV_RELEASE)/bin/python $(INSTALL) -c constraints-release.txt build cffconvert hatchling twine
	@touch $@

.PRECIOUS: .venv-extra-%/installed
.venv-extra-%/installed: pyproject.toml constraints.txt | dist/built
	@$(call make_venv,.venv-extra-$*)
	@.venv-extra-$*/bin/python $(INSTALL) -c constraints.txt "$$(echo dist/*.whl)[$*]" pytest pytest-xdist
	@touch $@

# The wheel is built from the source distribution, as installers do that find no wheel.
PACKAGED = mkdocs.yml $(shell find rankseg_plugins benchmarks configs docs examples tests -type f -not -name '*.pyc') \
	$(wildcard *.md *.txt *.toml *.py *.cff) LICENSE
dist/built: $(VENV_RELEASE)/installed $(PACKAGED)
	@rm -rf dist
	@$(VENV_RELEASE)/bin/python -m build --no-isolation . >/dev/null
	@touch $@

.venv-torchvision/installed: pyproject.toml constraints.txt
	@$(call make_venv,.venv-torchvision)
	@.venv-torchvision/bin/python $(INSTALL) -c constraints.txt -e '.[transformers]' pytest pytest-xdist
	@.venv-torchvision/bin/python $(INSTALL) -c constraints.txt --no-deps torchvision
	@touch $@

define make_venv
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "Python 3.11 or newer is needed; say which one: make PYTHON=python3.11 ..." >&2; exit 1; }; \
echo "Installing into $(1) (once, some minutes) ..."; \
$(PYTHON) -m venv $(1)
endef
