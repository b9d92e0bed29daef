# 信复 xinfu. `make help` lists everything.
PYTHON ?= python3.11
BROKER ?= embedded
VENV := .venv
RUN := $(VENV)/bin
MEMBERS := contracts services/chassis services/intake services/routing services/dept-adapter services/sync services/notify deploy/local deploy/sandbox deploy/ops
UV_VERSION := 0.13.9
export BROKER
export UV_PYTHON_DOWNLOADS = never

.PHONY: help install run demo test check test-fast test-real test-broker bench bench-targets chaos chaos-short hostile lost-bus backlog generate lock clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# every member installed as itself, so that each stays a deployable of its own; compiled once, not at each start of each of a
# stack's processes where PYTHONDONTWRITEBYTECODE is set
$(VENV)/.installed: requirements.lock pyproject.toml $(addsuffix /pyproject.toml,$(MEMBERS))
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: install it, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(RUN)/uv || $(RUN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(RUN)/uv pip sync --quiet --python $(RUN)/python --compile-bytecode --require-hashes requirements.lock
	$(RUN)/uv pip install --quiet --python $(RUN)/python --no-deps --no-build-isolation $(addprefix -e ,$(MEMBERS))
	@$(RUN)/python -m compileall -q -j 0 $(MEMBERS)
	@touch $@

install: $(VENV)/.installed ## install everything into .venv

run: install ## start everything, do the main job for you to watch, stay up until Ctrl-C
	$(RUN)/xinfu run

demo: install ## the same, and exit 0 when the last target shows what was decided
	$(RUN)/xinfu demo

test: check test-fast test-real ## the whole suite (BROKER=apache: on Apache Kafka)

check: install ## ruff and mypy (strict)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy

# two files at a time, each of the two with servers and services of its own: most of their time is waiting; in the order of conftest.py
WORKERS ?= 2
BESIDE = -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-fast: install ## unit and contract tests
	$(RUN)/pytest -q $(BESIDE) tests/unit tests/contract

test-real: install ## tests on a real broker, a real MongoDB and all services (WORKERS=1: one at a time)
	$(RUN)/pytest -q $(BESIDE) --durations=12 tests/integration tests/e2e

# of the same, all that the broker has a part in; what the rest shows does not depend on it
BROKER_TESTS = $(patsubst %,tests/integration/test_%.py,batch_consumer batches_under_fire bus_contract examples graceful_stop \
	local_stack operations_api outbox_relay parking secured_bus) \
	$(patsubst %,tests/e2e/test_%.py,bad_input emitted_events flow kinds operations services verify)
test-broker: install ## of these tests, those that the broker has a part in (BROKER=apache)
	$(RUN)/pytest -q $(BESIDE) --durations=12 $(BROKER_TESTS)

bench: install ## events/s of one hop beside two yardsticks, in one run
	PYTHONPATH=tests $(RUN)/python tests/bench/hop.py

RECORDS ?= 10000
bench-targets: install ## decided records and six targets, calm and with 5% faults of each kind, beside a bare HTTP client (RECORDS=)
	PYTHONPATH=tests $(RUN)/python tests/bench/targets.py --records $(RECORDS)

SEED ?= 1
MINUTES ?= 8
APPLICATIONS ?= 3000
chaos: install ## load and faults on Apache Kafka, then every invariant (SEED=, MINUTES=, APPLICATIONS=, SERVERS_ONLY=1, SABOTAGE=inbox|offset|version)
	PYTHONPATH=tests $(RUN)/python -m chaos --seed $(SEED) --minutes $(MINUTES) --applications $(APPLICATIONS) $(if $(SABOTAGE),--sabotage $(SABOTAGE)) $(if $(SERVERS_ONLY),--servers-only)

chaos-short: install ## the same in under 4 minutes
	PYTHONPATH=tests $(RUN)/python -m chaos --seed 1 --minutes 1 --applications 300

COUNT ?= 100000
hostile lost-bus backlog: BROKER = apache
hostile: install ## hostile events into every topic, and an account of each one (COUNT=)
	PYTHONPATH=tests $(RUN)/python -m chaos.hostile --count $(COUNT) --broker $(BROKER)

lost-bus: APPLICATIONS = 300
lost-bus: install ## Kafka loses all its data in the middle of the flow; the outboxes are replayed (APPLICATIONS=)
	PYTHONPATH=tests $(RUN)/python -m chaos.lost_bus --applications $(APPLICATIONS) --broker $(BROKER)

backlog: APPLICATIONS = 20000
backlog: install ## a backlog with the consumers down, then the drain rate beside the steady rate (APPLICATIONS=)
	PYTHONPATH=tests $(RUN)/python -m chaos.backlog --applications $(APPLICATIONS) --broker $(BROKER)

generate: install ## JSON Schemas, AsyncAPI and OpenAPI from the code
	$(RUN)/python -m contracts.generate
	$(RUN)/xinfu openapi

lock: install ## resolve again and write requirements.lock (hashes, no URLs)
	$(RUN)/uv lock --upgrade
	$(RUN)/uv export --quiet --no-emit-workspace --all-packages --all-groups --no-header --no-annotate --format requirements.txt -o requirements.lock

clean: ## remove what runs left behind
	rm -rf .xinfu
