# proact: a newcomer needs `make demo` and `make test`; `make help` lists the rest.
#
# Each target does its own set-up, from Python >= 3.11 with venv, a C linker and a Rust toolchain. Targets that take more than
# a few lines are in scripts/.
#
#   PYTHON=python3.12   the Python to build for (default: python3, or the newest suitable one)
#   VENV=.venv          the place of the virtual environment

PYTHON ?=
VENV ?= .venv
DEMO_ARGS ?= --connections 100 --size 1024
BENCH_ARGS ?=
MILLION_ARGS ?=
SOAK_ARGS ?=
FUZZ_ARGS ?=
CLAIMS ?= all
RACE_ARGS ?=

export PYTHON VENV

SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lab-reference lab-docs claims-noise conformance ecosystem suites dev format lint bench million soak fuzz race test-freethreaded docs wheels check-wheels release clean check check-lint

# The Python is searched for only when a recipe needs it, after `check` has made sure that there is one.
use = python=$$(scripts/pythons default) && PYTHON=$$python &&
setup = scripts/setup $(VENV) "$$python"

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=... names another Python (>= 3.11), VENV=... another place than .venv"

demo: check  ## build proact, then serve real traffic through every I/O model and show what each costs, also in build/demo-report.html
	@$(use) $(setup) cli lab peers
	@mkdir -p build
	@$(VENV)/bin/proact lab echo $(DEMO_ARGS) --html build/demo-report.html

test: check  ## build, then run the Rust and the Python tests on every engine and on every newer Python found
	@$(use) scripts/test

conformance: check  ## run all of CPython's own asyncio tests on every engine, peer and Python; write docs/compatibility.md
	@$(use) scripts/conformance

ecosystem: check  ## run uvicorn, aiohttp, Redis, PostgreSQL, dask, gevent's programs and others on proact, installing what is needed
	@$(use) scripts/ecosystem

suites: check  ## run asyncssh's, anyio's, aiohttp's, uvloop's and aiofastnet's own tests; report what fails only on proact
	@$(use) scripts/suites

dev: check-lint  ## make .venv ready to work in: proact (editable), every extra, the linters, the tests, the peers
	@$(use) $(setup) cli lab green workbench
	@echo "ready: . $(VENV)/bin/activate"

format: check-lint  ## format the sources by rustfmt and ruff
	@$(use) $(setup) --no-build lint
	@cargo fmt --all
	@$(VENV)/bin/ruff check --fix-only --quiet .
	@$(VENV)/bin/ruff format .

lint: check-lint  ## rustfmt, clippy, ruff, mypy --strict, stubtest: everything that CI checks
	@$(use) $(setup) cli lab green workbench
	@scripts/lint

bench: check  ## measure proact against its peers, interleaved (about 25 minutes), and write docs/performance.md
	@$(use) $(setup) peers bench
	@scripts/wrk
	@$(VENV)/bin/python -m benchmarks $(BENCH_ARGS)
	@$(VENV)/bin/python -m benchmarks.files
	@$(VENV)/bin/python -m benchmarks.report

million: check  ## as many connections as fit into memory, up to 1,000,000; MILLION_ARGS='--connections 100000 --contenders uvloop'
	@$(use) $(setup) peers
	@$(VENV)/bin/python -m benchmarks.million $(MILLION_ARGS)

lab-reference: check  ## measure what `proact lab choose` answers from, on a quiet machine (about 50 minutes; goes on with what there is)
	@$(use) $(setup) cli lab peers
	@$(VENV)/bin/python -m proact.cli.lab_reference python/proact/lab/choose/reference.json

lab-docs: check  ## measure what docs/lab shows, on a quiet machine (about 12 minutes); PARTS=results, claims or pictures
	@$(use) $(setup) cli lab peers
	@scripts/lab-docs $(VENV)/bin/python $(PARTS)

claims-noise: check  ## each claim quiet, then beside busy loops, on one core, under nice, with a stolen core: no verdict may turn round; CLAIMS=a,b
	@$(use) $(setup) cli lab peers
	@PYTHONPATH=tests $(VENV)/bin/python -m support.claims_noise $(or $(CLAIMS),all) $(KNOWN)

soak: check  ## five minutes of everything at once on every engine; SOAK_ARGS='--minutes 1 --engine epoll --seed 7'
	@$(use) $(setup) test
	@PYTHONPATH=tests $(VENV)/bin/python -m soak $(SOAK_ARGS)

fuzz: check  ## two minutes of random ops, compared with a model of what must arrive; FUZZ_ARGS='--seconds 60 --engine epoll --seed 7'
	@$(use) $(setup) test
	@PYTHONPATH=tests $(VENV)/bin/python -m fuzz $(FUZZ_ARGS)

wheels: check  ## build an sdist and a wheel for each Python found, for glibc 2.17, into dist/, and check them
	@$(use) scripts/wheels

check-wheels: check  ## check what is in dist/: size, symbols, and that each serves in a fresh venv without a compiler
	@$(use) scripts/check-wheels

release: check  ## check that version, changelog and tag agree, build and check the packages, and say how to upload them
	@$(use) $$PYTHON scripts/release.py check
	@$(use) scripts/wheels
	@$(use) $$PYTHON scripts/release.py done

docs: check  ## the documentation as a site that needs no network, in build/site
	@$(use) $(setup) cli green docs
	@$(VENV)/bin/python docs/site/build.py

race: check  ## a minute of random calls from many threads on running loops; RACE_ARGS='--seconds 60 --engine epoll --seed 7'
	@$(use) $(setup) test
	@PYTHONPATH=tests $(VENV)/bin/python -m race $(RACE_ARGS)

test-freethreaded: check  ## build a free-threaded CPython from Debian's source, and run the tests that matter there (half an hour)
	@scripts/test-freethreaded

clean:  ## remove everything that make has made, but not the results of benchmarks
	rm -rf .venv .venv-[0-9]* .venv-ecosystem* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis target
	rm -f python/proact/_core.*.so

check:
	@scripts/check-tools

check-lint:
	@scripts/check-tools lint
