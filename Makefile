# Everything an engineer does here. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
PYTHON := $(VENV)/bin/python
C_FILES := $(shell find runtime/csrc -name '*.[ch]' ! -name '*.bpf.c')
STAMP := $(VENV)/.installed
C_FORMATTED := $(shell find runtime/csrc runtime/examples tests -name '*.[ch]')

.PHONY: help setup demo test check lint format check-c sanitize deb dist packages bare sim fuzz vm bench bench-vm sites yardstick clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(STAMP) ## install what is needed (Debian packages as root, Python packages into .venv)

# A stale extension must never be tested: whatever it is made of makes it again.
$(STAMP): pyproject.toml setup.py setup.cfg runtime/ffi_build.py $(C_FILES) runtime/csrc/libnmio/filter.bpf.c .ci/setup
	.ci/setup $(VENV)
	@touch $@

demo: $(STAMP) ## build the example site and serve it to curl and a browser; DEMO_ONCE=1 ends after one look
	$(PYTHON) manifests/demo/run.py

# One worker for each core; a worker that is done takes from what the others have left.
SKIPS := $(CURDIR)/.cache/skips.json
PYTEST := $(PYTHON) -m pytest -n auto --maxprocesses 8 --dist worksteal --durations 15

test: $(STAMP) lint sanitize packages ## all checks and tests
	SANDSTORM_TAKE_SKIPS=$(SKIPS) $(PYTEST)

check: $(STAMP) ## the inner loop: linters of Python, unit tests and packet scripts but for those that take long
	$(VENV)/bin/ruff check -q .
	$(VENV)/bin/ruff format -q --check .
	$(VENV)/bin/mypy compiler/sscc runtime/ssimage runtime/ssrun
	$(PYTEST) -q -m "not long and not slow" tests/unit tests/scripts

lint: $(STAMP) check-c ## formatters and linters
	$(VENV)/bin/ruff check -q .
	$(VENV)/bin/ruff format -q --check .
	$(VENV)/bin/mypy compiler/sscc runtime/ssimage runtime/ssrun
	$(VENV)/bin/clang-format --dry-run -Werror $(C_FORMATTED)

check-c: $(STAMP) ## the C files under gcc's warnings and analyzer, and cppcheck
	.ci/check-c

format: $(STAMP) ## format all files
	$(VENV)/bin/ruff check -q --fix .
	$(VENV)/bin/ruff format -q .
	$(VENV)/bin/clang-format -i $(C_FORMATTED)

sanitize: $(STAMP) ## the unit tests against a build with ASan and UBSan
	SANDSTORM_LEAVE_SKIPS=$(SKIPS) .ci/sanitize $(VENV)

DIST := .cache/dist
deb: $(STAMP) ## the Debian package, into .cache/dist
	@runtime/packaging/deb $(VENV) $(DIST)

dist: $(STAMP) ## the wheel and the source distribution, into .cache/dist
	@runtime/packaging/dist $(VENV) $(DIST)

packages: $(STAMP) ## what the tests of packages install, into .cache/packages
	.ci/packages $(VENV)

BARE ?= DEMO_ONCE=1 make demo && make test
bare: ## the README's two commands in a bare Debian made by mmdebstrap: make bare BARE='DEMO_ONCE=1 make demo'
	.ci/bare '$(BARE)'

SEEDS ?= 10000
sim: $(STAMP) ## the simulation: make sim SEEDS=10000
	.ci/checked $(VENV) tests/sim/world.py --seeds $(SEEDS)

FUZZ_SECONDS ?= 600
fuzz: $(STAMP) ## fuzz the core: make fuzz FUZZ_SECONDS=600 (for each target)
	$(PYTHON) tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

vm: $(STAMP) ## ssrun on the cards of an emulated machine: AF_XDP without copies, and netmap by modules that you name
	$(PYTHON) -m tests.vm.packages
	SANDSTORM_VM=all $(PYTHON) -m pytest -v tests/vm

bench: $(STAMP) ## all figures beside nginx, h2o and lighttpd, in some 40 minutes, into docs/benchmarks
	$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[bench]'
	$(PYTHON) tests/bench/bench.py

bench-vm: $(STAMP) ## instructions of the whole system beside nginx, in emulated machines, in 20 minutes, into docs/benchmarks
	$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[bench]'
	$(PYTHON) -m tests.vm.packages
	$(PYTHON) -m tests.vm.bench

sites: $(STAMP) ## sites of others, from Debian, npm and PyPI: built as they come, served and compared
	$(PYTHON) tests/e2e/real_sites.py

yardstick: $(STAMP) ## goodput under loss beside Linux, into docs/loss.md
	$(PYTHON) tests/path/yardstick.py

clean: ## remove what was built
	rm -rf $(VENV) .cache build/*.img build/*.img.lz4 runtime/ssimage/_sandstorm*.so *.egg-info
