# What can be done with this checkout. The comment beside a target is its help.

PYTHON ?= python3
CATALOG ?= embedded
MINUTES ?= 5
SHARE ?= 1
ADVISORIES ?=
UPGRADE ?=
export PYTHON

VENV := .venv/bin
# In the order in which they are cheap to fail.
LINT := $(VENV)/ruff check && $(VENV)/ruff format --check && $(VENV)/mypy && $(VENV)/lint-imports

.DEFAULT_GOAL := help
.PHONY: help demo demo-down lab lab-down test lab-test lint unit integration docs fuzz soak lock audit platforms release venv engine consul screenshot tools clean

help: # this list
	@sed -nE 's/^([a-z-]+):[^#]*# (.*)/\1@\2/p' $(MAKEFILE_LIST) | \
		while IFS=@ read -r target text; do printf 'make %-12s %s\n' "$$target" "$$text"; done

demo: # set up and show the demo, with all that it needs; with a real Consul: make demo CATALOG=consul
	@started=$$(date +%s.%N) && scripts/venv.sh && scripts/engine.sh compose && \
		$(VENV)/python -m scripts.demo up --catalog $(CATALOG) --started "$$started"

demo-down: # remove all that make demo made, and nothing else
	@scripts/venv.sh && $(VENV)/python -m scripts.demo down && scripts/engine.sh stop

lab: # a Swarm of three nodes on this machine, with compose/stack.yml on it
	@scripts/venv.sh && scripts/engine.sh && scripts/test-tools.sh && $(VENV)/python -m scripts.lab up

lab-down: # remove all that make lab made, and nothing else
	@scripts/venv.sh && $(VENV)/python -m scripts.lab down && scripts/engine.sh stop

test: venv tools engine consul # lint, types, import contracts and every test
	$(LINT)
	@scripts/test.sh

lab-test: venv tools engine consul # the tests on three nodes of a Swarm alone
	$(VENV)/pytest -m lab

lint: venv # ruff, mypy and the import contracts alone
	$(LINT)

unit: venv # the tests that need neither an engine nor a Consul
	$(VENV)/pytest -m "not engine and not consul and not demo and not browser"

integration: venv tools engine consul # the tests on a real engine and a real Consul, without the demo's and the lab's
	$(VENV)/pytest -m "(engine or consul) and not demo and not lab"

docs: venv # write the generated tables into the documents
	@$(VENV)/python -m scripts.docs

fuzz: venv # every parser of outside text, led by coverage, and damaged DNS packets, each for MINUTES=5
	$(VENV)/python -m tests.fuzz.guided --minutes $(MINUTES)
	$(VENV)/python -m tests.fuzz_dns --minutes $(MINUTES)

soak: venv consul # the long life of one agent, and a verdict on its memory; a tenth of it: make soak SHARE=0.1
	$(VENV)/python -m tests.soak --share $(SHARE)

lock: venv # pin what is installed, with hashes; newer versions: make lock UPGRADE=--upgrade
	@$(VENV)/python -m scripts.locks $(UPGRADE)

audit: venv # known faults of locked versions; without a service: make audit ADVISORIES=FOLDER of OSV documents
	@$(VENV)/python -m scripts.audit $(if $(ADVISORIES),--advisories $(ADVISORIES))

platforms: venv # whether there are wheels of all that is locked, for each machine and Python
	@$(VENV)/python -m scripts.platforms

release: venv # wheel, sdist, SBOM, licences and the image's build file, into dist/
	@$(VENV)/python -m scripts.release

venv: # the virtual environment .venv
	@scripts/venv.sh

engine: # see to it that a Docker engine and docker compose are there
	@scripts/engine.sh compose

consul: # fetch a Consul where none is on PATH, and print its path
	@scripts/consul.sh

screenshot: venv tools # docs/page.png anew: the page in a real Chromium
	@$(VENV)/python -m scripts.screenshot

tools: # install what the tests use beside: dig, ip, busybox, Chromium
	@scripts/test-tools.sh

clean: # remove what the targets above have put into the checkout
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
