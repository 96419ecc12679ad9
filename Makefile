# Two commands matter: `make demo` and `make test`. The others are parts of them.
.PHONY: help demo recording test test-attacks test-suites conformance test-cgroups test-systemd soak-sandbox chaos sim fuzz lock audit sbom check venv walls wasm schemas permissions bench footprint bench-owner bench-comfort bench-sensors bench-startup bench-sandbox bench-matching bench-arrays bench-flood bench-transfer bench-recovery bench-kills bench-scale bench-peers bench-throughput bench-fleet clean

# Hundreds of processes start in a test run: none is to compile our modules once more.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PYTEST := $(BIN)/pytest -n auto --dist worksteal
AS_USER := tests/adversarial/test_as_ordinary_user.py
# Their bounds of 5 s are not ours to change: on a busy machine they say nothing.
SUITES := tests/external

help:
	@echo 'make demo       lend three machines, run real work on them, pause one, revoke another'
	@echo 'make recording  what a submitter sees: submit, logs -f, why, cancel, on a terminal of its own'
	@echo 'make test       everything that CI runs: style, types, import rules, tests'
	@echo 'make test-attacks  every attack on the sandboxes, once more against an ordinary user'"'"'s lenderd'
	@echo 'make test-suites   CPython'"'"'s own tests of executors and joblib'"'"'s of backends, which want a quiet machine'
	@echo 'make conformance   submitters in Node.js and in shell, and the AsyncAPI document (asks the network)'
	@echo 'make test-cgroups  limits by cgroup, in an emulated machine that has every controller'
	@echo 'make test-systemd   the package on a Debian that systemd boots in a container: as root, some minutes'
	@echo 'make soak-sandbox  10,000 sandboxed tasks with faults among them, and what is left of them'
	@echo 'make chaos      20 lenders, two brokers and a NATS cluster under random faults: MINUTES=10 SEED=n'
	@echo 'make sim        the cores of broker and lenders in a simulated world: SEED=n, or SEEDS=1..1000'
	@echo 'make permissions  who may do what, as a real server has it'
	@echo 'make check      style, types and import rules only'
	@echo 'make footprint  memory and CPU of an idle lenderd'
	@echo 'make bench      everything measured, beside other systems, as one table: two hours; ARGS=--quick'
	@echo 'make bench-owner    how fast pause and revoke stop whatever runs'
	@echo 'make bench-comfort  what lending costs the work in the foreground'
	@echo 'make bench-sensors  what each reading of the machine costs'
	@echo 'make bench-startup  what the owner waits for status and pause, beside a bare Python'
	@echo 'make bench-sandbox  what a sandboxed task costs, beside a bare fork and exec'
	@echo 'make bench-recovery how long a fleet is without a broker after a kill, with many live jobs'
	@echo 'make bench-kills    how long work stands still after kill -9 of a lenderd, a NATS server, a node'
	@echo 'make bench-scale    what a job costs broker and server, by the fleet and by the queue'
	@echo 'make bench-matching what a placement costs the broker, by queue, fleet, groups and submitters'
	@echo 'make bench-arrays   what ten million tasks of one array cost the broker and a client'
	@echo 'make bench-flood    what one submitter'"'"'s 200,000 jobs do to another'"'"'s, and to the broker'
	@echo 'make bench-transfer what files cost to and from a bucket: ARGS="--mib 2048 --runs 1"'
	@echo 'make bench-peers    other systems beside this one, those that bench/peers/install has installed'
	@echo 'make bench-throughput jobs and tasks per second, and how long one takes, beside raw JetStream'
	@echo 'make bench-fleet    10,000 lenders, 10 million tasks, three days of theirs; less by ARGS="--days 1 ..."'
	@echo 'make walls      build what the sandboxes have in C; the others do it by themselves'
	@echo 'make wasm       build the workloads and test modules from source'
	@echo 'make schemas    write docs/schemas, docs/asyncapi.json and docs/permissions.md from the code'
	@echo 'make fuzz       attack every decoder of bytes from outside: MINUTES=10 for each, ONLY=name JOBS=n'
	@echo 'make lock       write locks/ from pyproject.toml; UPGRADE=1 takes the newest of all'
	@echo 'make audit      hold what is locked against published weaknesses (asks the network)'
	@echo 'make sbom       list what is installed with the product: build/sbom.json (CycloneDX)'
	@echo 'make clean      remove what the targets above made'

demo:
	@.ci/venv server
	@$(BIN)/python -m deploy.local.demo

recording:
	@.ci/venv server
	@.ci/packages bubblewrap tmux
	@$(BIN)/python -m deploy.local.recording

venv:
	@.ci/venv server,dev

walls:
	@.ci/packages gcc libc6-dev
	@.ci/walls

check: venv
	@$(MAKE) --no-print-directory --output-sync -j $(shell nproc) types types-mac style

style:
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

types:
	$(BIN)/mypy

types-mac:
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin

test: check walls
	@.ci/packages bubblewrap crun dbus openssl systemd xvfb xdotool
	@.ci/packages nix-bin
	@.ci/manifests
	@# Of the cores' coverage every line is owed to an example: properties cost double under it.
	$(PYTEST) --cov=lender.core --cov=lender.protocol --cov=broker.core --cov-report= tests/unit
	$(BIN)/coverage report --include='lender/core/*,lender/protocol/*,broker/core/*' --fail-under=100
	$(PYTEST) --ignore tests/unit --ignore $(AS_USER) --ignore $(SUITES)

test-attacks: venv walls
	@.ci/packages bubblewrap crun
	$(PYTEST) tests/adversarial

test-suites: venv walls
	@.ci/packages bubblewrap libpython3.11-testsuite
	$(BIN)/pytest -rP $(SUITES)

conformance: venv walls
	@.ci/packages bubblewrap openssl
	@.ci/conformance
	$(BIN)/pytest tests/conformance

test-cgroups: venv
	@tests/vm/run

test-systemd: venv walls
	@tests/vm/run-systemd

soak-sandbox: venv walls
	@.ci/packages bubblewrap
	LENDER_SOAK_TASKS=10000 $(BIN)/pytest -s tests/acceptance/test_sandbox_endurance.py

chaos: venv walls
	@.ci/packages bubblewrap
	@PYTHONPATH=.:tests $(BIN)/python -m chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED))

sim: venv
	@PYTHONPATH=.:tests $(BIN)/python -m sim.run \
		$(if $(SEEDS),--seeds $(SEEDS) --processes $(shell nproc),--seed $(or $(SEED),1))

permissions: venv
	@PYTHONPATH=.:tests $(BIN)/python -m permissions

fuzz:
	@.ci/venv server,dev,fuzz
	@PYTHONPATH=.:tests $(BIN)/python -m fuzz --minutes $(or $(MINUTES),10) \
		$(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))

lock:
	@.ci/lock

audit:
	@.ci/tools
	@.tools/bin/pip-audit --strict --disable-pip --require-hashes $(patsubst %,-r %,$(wildcard locks/*.txt))

sbom:
	@.ci/tools
	@VENV=build/shipped .ci/venv server
	@.tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file build/sbom.json build/shipped/bin/python
	@echo build/sbom.json

footprint:
	@.ci/venv server
	@$(BIN)/python bench/footprint.py

bench-owner bench-comfort bench-sensors bench-startup bench-sandbox bench-recovery: bench-%: walls
	@.ci/venv server
	@.ci/packages bubblewrap
	@PYTHONPATH=. $(BIN)/python bench/$*.py

bench-peers: walls
	@.ci/venv server
	@$(BIN)/python -m bench.peers $(ARGS)

bench-throughput: walls
	@.ci/venv server
	@.ci/packages bubblewrap
	@PYTHONPATH=. $(BIN)/python bench/throughput.py $(ARGS)

bench-matching bench-arrays: bench-%: venv
	@$(BIN)/python bench/$*.py

bench: venv walls
	@.ci/packages bubblewrap
	@$(BIN)/python -m bench $(ARGS)

bench-scale: venv
	@PYTHONPATH=.:tests $(BIN)/python bench/scale.py $(ARGS)

bench-kills: walls
	@.ci/venv server,dev
	@.ci/packages bubblewrap
	@PYTHONPATH=.:tests $(BIN)/python bench/kills.py $(ARGS)

bench-transfer: venv
	@PYTHONPATH=.:tests $(BIN)/python bench/transfer.py $(ARGS)

bench-flood: venv
	@PYTHONPATH=.:tests $(BIN)/python bench/flood.py

bench-fleet: venv
	@PYTHONPATH=.:tests $(BIN)/python -m bench.fleet $(if $(SEED),--seed $(SEED)) $(ARGS)

wasm:
	@.ci/packages clang lld wasi-libc libclang-rt-14-dev-wasm32
	workloads/build.sh

schemas: venv
	$(BIN)/python docs/generate_schemas.py
	$(BIN)/python docs/generate_permissions.py
	$(BIN)/python docs/generate_asyncapi.py

clean:
	rm -f lender/sandbox/walls/enter
	rm -rf tests/conformance/node/node_modules
	rm -rf .venv .tools build dist *.egg-info .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
