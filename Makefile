# Everything that a person or CI runs. Needs Python 3.11 or newer and make; `make venv` installs the rest into .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=
#: more than cores: most tests wait for something real
WORKERS ?= 4
#: bounded: a minute of three whole controllers that handle an incident takes up to seven seconds of a processor
ZONE   := --level engine --lead opennebula --hours 0.1 --hosts 4 --times 30

.PHONY: help venv demo docs man audit ansible test scenarios lint check peers campaign sim sim-zone planted mutants model fuzz coverage chaos takeovers wheels deb try-deb try-pages release container bench bench-gate soak clean screenshots

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

venv: $(VENV)/.ready                       ## make .venv with the locked versions

$(VENV)/.ready: requirements.lock pyproject.toml $(wildcard plugins/*/pyproject.toml)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	for package in . ./plugins/*/; do \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable $$package || exit 1; done
	touch $@

$(VENV)/.dev: $(VENV)/.ready requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

demo: venv                                 ## break a host of an embedded cloud and watch: make demo ARGS="--fault hang"
	$(BIN)/ha-controller demo $(ARGS)

test: lint                                 ## lint, types, layers, tests (peer tests are skipped where they cannot run)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 60 --durations-min 10 $(ARGS)

scenarios: $(VENV)/.dev                    ## half a minute: every story of tests/scenarios; ARGS=--accept writes logs and docs/scenarios.md anew
	$(BIN)/python -m pytest -q tests/scenarios $(ARGS)

peers: .peers/venv/.ready .peers/ansible/.ready .peers/wheelhouse/.ready ## install the test peers that are written in Python (sushy-tools, Ansible)

# with the Python of the distribution: it runs on machines that have no other
.peers/ansible/.ready: tests/ship/ansible.lock
	/usr/bin/python3 -m venv .peers/ansible
	.peers/ansible/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/ship/ansible.lock
	touch $@

# what an index would give, for machines whose network leads nowhere
.peers/wheelhouse/.ready: requirements.lock .peers/ansible/.ready
	rm -rf .peers/wheelhouse
	.peers/ansible/bin/pip download --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock -d .peers/wheelhouse
	touch $@

.peers/venv/.ready: tests/peers/requirements.lock
	$(PYTHON) -m venv .peers/venv
	.peers/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/peers/requirements.lock
	touch $@

campaign: $(VENV)/.dev                     ## half an hour: a million host-hours of lost packets and real deaths, by the core
	$(BIN)/python tests/campaigns/healthy.py $(ARGS)

mutants: $(VENV)/.dev                      ## hours: mutmut's mutants of the core against its tests; a run that was ended goes on
	$(BIN)/pip install --quiet --upgrade --no-deps --target .mutants/lib mutmut==3.8.1 libcst==1.9.0 coverage==7.17.5 pytest-cov==7.1.0 pyyaml setproctitle
	test -e .mutants/cov.db || PYTHONPATH=.mutants/lib $(BIN)/python -m pytest -q -p pytest_cov tests/core tests/scenarios -n $(WORKERS) -p no:cacheprovider \
		--cov --cov-config=tests/campaigns/mutants.ini --cov-context=test --durations=0 > .mutants/cov.log
	PYTHONPATH=.mutants/lib $(BIN)/python tests/campaigns/mutants.py .mutants $(ARGS)

model: $(VENV)/.dev                        ## half a minute: every state of the protocol's model; ARGS=--accept writes its page anew
	PYTHONPATH=tests $(BIN)/python -m protocol_model.report $(ARGS)

sim: $(VENV)/.ready                         ## two or three minutes on two cores: 100,000 host-hours of faults, checked after every step
	$(BIN)/ha-controller simulate run --hours 48 --times 0.3 --seeds 1:255 $(ARGS)
	$(BIN)/ha-controller simulate run $(ZONE) --controllers 2 --seeds 1:2
	$(BIN)/ha-controller simulate run $(ZONE) --controllers 3 --seeds 1:2

sim-zone: $(VENV)/.ready                    ## an hour: two and three whole controllers that lead by OpenNebula's Raft
	$(BIN)/ha-controller simulate run $(ZONE) --controllers 2 --seeds 2:101 $(ARGS)
	$(BIN)/ha-controller simulate run $(ZONE) --controllers 3 --seeds 2:101 $(ARGS)

planted: $(VENV)/.dev                      ## minutes: mistakes planted in the core and around it, each must be found by the simulator
	$(BIN)/python tests/planted/bugs.py $(ARGS)
	$(BIN)/python tests/planted/engine_bugs.py $(ARGS)
	$(BIN)/python tests/planted/shared_bugs.py $(ARGS)

docs: .docs/venv/.ready                    ## the documentation as a site in .docs/site; a broken link is an error
	.docs/venv/bin/mkdocs build --quiet

man: $(VENV)/.ready                         ## a manual page for each command, in dist/man: man -l dist/man/ha-controller.1
	$(BIN)/python packaging/man_pages.py dist/man

.docs/venv/.ready: requirements-docs.lock
	$(PYTHON) -m venv .docs/venv
	.docs/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.lock
	touch $@

$(VENV)/.proof: $(VENV)/.dev requirements-proof.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-proof.lock
	touch $@

fuzz: $(VENV)/.proof                       ## eight minutes: hostile input at every door: make fuzz ARGS="--seconds 300 etcd-answers"
	$(BIN)/python tests/fuzz/campaign.py $(ARGS)

coverage: $(VENV)/.proof                   ## five minutes: what the tests reach of the core and the loop; fails below 95 %
	$(BIN)/python -m pytest -q --numprocesses $(WORKERS) --dist loadfile --cov=ha_controller.core --cov=ha_controller.engine \
	  --cov-branch --cov-report= tests/core tests/scenarios tests/app tests/flight tests/adapters tests/sim
	$(BIN)/python tests/coverage_of_core.py

chaos: $(VENV)/.dev                        ## as root, minutes: real processes killed, stopped, cut off: ARGS="--rounds 100 --seed 1"
	$(BIN)/python -m tests.chaos.campaign $(ARGS)

takeovers: $(VENV)/.dev                    ## as root, minutes: the lead is lost in every way and phase of an incident: ARGS="--rounds 50 --seed 1"
	$(BIN)/python -m tests.chaos.takeovers $(ARGS)

bench: .bench/venv/.ready $(VENV)/.dev      ## as root, a quarter of an hour: everything beside its peers: ARGS="icmp banner --rounds 9"
	$(BIN)/python -m bench $(ARGS)

bench-gate: .bench/venv/.ready $(VENV)/.dev ## as root, a minute: fails where a ratio is half as much again as its goal, five times
	$(BIN)/python -m bench --gate

soak: $(VENV)/.dev                         ## as root, ten minutes: 1,000 hosts, incidents, memory must not grow: ARGS="--minutes 60"
	$(BIN)/python -m bench.soak $(ARGS)

.bench/venv/.ready: requirements-bench.lock
	$(PYTHON) -m venv .bench/venv
	.bench/venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.lock
	touch $@

screenshots: $(VENV)/.dev                   ## a minute: pictures of the page during an incident, in Debian's chromium, for docs/pictures
	$(BIN)/python -m tests.page.screenshots $(ARGS)

wheels: $(VENV)/.ready                      ## a minute: all wheels, installed with ours from a folder, and the demo far from here
	packaging/check-wheels $(ARGS)

deb:                                       ## ha-controller_*.deb for the distribution it is built on, in dist/
	packaging/build-deb dist

try-deb: $(VENV)/.ready                     ## as root, minutes: the package on fresh machines: started, hung, upgraded, removed
	$(BIN)/python -m tests.ship.try_deb

try-pages: $(VENV)/.ready .peers/ansible/.ready .peers/wheelhouse/.ready ## as root, minutes: the pages followed literally on fresh machines: ARGS="pip deb ansible container hand"
	$(BIN)/python -m tests.ship.walks $(ARGS)

release:                                   ## minutes: all files of a release, built twice and compared: ARGS=--dry-run (docs/releasing.md)
	packaging/release $(ARGS)

audit:                                     ## known vulnerabilities of what is locked; fails where their service does not know our packages
	test -x .audit/venv/bin/pip-audit || { $(PYTHON) -m venv .audit/venv && .audit/venv/bin/pip install --quiet --disable-pip-version-check pip-audit; }
	.audit/venv/bin/pip-audit --strict --disable-pip --require-hashes -r requirements.lock $(ARGS)

ansible: .peers/ansible/.ready              ## the Ansible role: ansible-lint, and check mode against this machine
	cd packaging/ansible && PATH=$(CURDIR)/.peers/ansible/bin:$$PATH ansible-lint --offline --profile production site.yml
	cd packaging/ansible && $(CURDIR)/.peers/ansible/bin/ansible-playbook -i check.yml --check --diff site.yml $(ARGS)

container: $(VENV)/.ready .peers/hadolint/.ready   ## as root, minutes: the Dockerfile checked by hadolint, built by buildah, run by crun
	.peers/hadolint/bin/hadolint Dockerfile
	$(BIN)/python -m tests.ship.try_container

.peers/hadolint/.ready: tests/ship/hadolint.lock
	$(PYTHON) -m venv .peers/hadolint
	.peers/hadolint/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/ship/hadolint.lock
	touch $@

lint: $(VENV)/.dev                         ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:                                     ## remove .venv and caches
	rm -rf $(VENV) .peers .docs .bench .audit .ansible .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
