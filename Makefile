# make run   the whole pipeline on this machine      make test      the tests      make test-all   and the long ones
# make lint  ruff and mypy                            make bench     benchmarks     make gpu-check  everything that needs a GPU
# Another interpreter: make run PYTHON=python3.12. Options of the pipeline: make run ARGS="--config configs/smoke.yaml".
SHELL := /bin/bash
VENV  := .venv
PY    := $(VENV)/bin/python
BOOT  := $(if $(PYTHON),$(PYTHON),$(shell command -v python3.11 || command -v python3))
ARGS  ?=
# Tests mostly wait for processes that they start, so two files at a time take little more than half the time.
PYTEST := $(PY) -m pytest -n auto --maxprocesses 4 --dist loadfile
.PHONY: run test test-all lint bench gpu-check clean venv

run: $(VENV)/.run
	@echo "make: running the pipeline; results go to runs/, market data and caches to data/"
	@$(PY) run_optimized_pipeline.py $(ARGS)

test: $(VENV)/.test
	@echo "make: running the tests (those marked slow or gpu wait for make test-all and make gpu-check)"
	@$(PYTEST) -m "not slow and not gpu and not bench" $(ARGS)

test-all: $(VENV)/.test-all
	@echo "make: running all tests that need no GPU; this takes a while"
	@$(PYTEST) -m "not gpu" $(ARGS)

lint: $(VENV)/.lint
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

bench: $(VENV)/.bench
	@$(PY) scripts/bench.py $(ARGS)

gpu-check: $(VENV)/.test
	@$(PY) scripts/gpu_check.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# One stamp a set of packages: nothing is installed again while setup.cfg and constraints.txt are unchanged.
define install
	@echo "make: installing $(2) into $(VENV) (versions from constraints.txt); the log is $(VENV)/install.log"
	@start=$$(date +%s); \
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.$(1)' >> $(VENV)/install.log 2>&1 || \
	  { tail -n 5 $(VENV)/install.log; echo "make: the installation failed; the lines above and $(VENV)/install.log say why"; exit 1; }; \
	echo "make: installed $(2) in $$(( $$(date +%s) - start )) s; $(VENV) holds $$(du -sm $(VENV) | cut -f1) MB" | tee $@
endef

$(VENV)/.run: setup.cfg constraints.txt | venv
	$(call install,,the pipeline)
$(VENV)/.test: setup.cfg constraints.txt $(VENV)/.run
	$(call install,[test],what the tests import)
$(VENV)/.test-all: setup.cfg constraints.txt $(VENV)/.test
	$(call install,[test$(comma)calendar$(comma)cubin$(comma)lakes$(comma)oracles],the heavy test packages)
$(VENV)/.lint: setup.cfg constraints.txt $(VENV)/.test
	$(call install,[lint],ruff and mypy)
$(VENV)/.bench: setup.cfg constraints.txt $(VENV)/.run
	$(call install,[bench],the peers that the benchmarks measure against)
comma := ,

# $(call version,INTERPRETER) is 3.11 or the like, nothing where that is no Python.
version = $$("$(1)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null | grep -xE '[0-9.]+')
venv:
	@[ ! -d $(VENV) ] || { here=$(call version,$(PY)); asked=$(call version,$(or $(PYTHON),$(PY))); \
	  [ -n "$$here" -a -x $(VENV)/bin/pip ] || \
	  { echo "make: expected Python and pip in $(VENV), found it half made or its Python gone; start anew with: make clean"; exit 1; }; \
	  [ "$$here" = "$$asked" ] || \
	  { echo "make: $(VENV) has Python $$here, PYTHON=$(PYTHON) is $${asked:-no Python}; to use another one, first: make clean"; exit 1; }; }
	@[ -d $(VENV) ] || { found=$(call version,$(BOOT)); case "$$found:$(PYTHON)" in \
	  3.11:*|3.1[2-9]:?*) echo "make: creating $(VENV) with Python $$found" ;; \
	  3.1[2-9]:) echo "make: found Python $$found but no python3.11. The small CPU build of torch is for 3.11 only: on a later Python pip"; \
	    echo "      brings torch with its CUDA libraries (cudnn, nccl, triton: several GB). To go on all the same: make run PYTHON=$(BOOT)"; exit 1 ;; \
	  *) echo "make: expected Python 3.11, found $${found:-no Python} at '$(BOOT)'; install python3.11 or give PYTHON=/path/to/python3.11"; exit 1 ;; esac; \
	  "$(BOOT)" -m venv $(VENV) || { echo "make: could not create $(VENV); on Debian install python3-venv"; rm -rf $(VENV); exit 1; }; }
