# What people type; the work is done in tools/. `make` alone lists the targets.

# More workers than cores: many tests wait for processes that they started.
PYTEST = .venv/bin/python -m pytest -n 3
COMPILE = .venv/bin/uv pip compile --quiet --system-certs --universal --python-version=3.11 --generate-hashes \
	--no-header --no-annotate $(if $(UPGRADE),--upgrade)

.PHONY: help run test test-faults test-containers check bench bench-quick bench-cache bench-check bench-soak loadtest migration check-deploy backup-drill lock clean environment

help: ## List the targets
	@awk -F ': .*## |: ## ' '/^[a-z-]+: .*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: environment ## Serve with reload, on its own PostgreSQL and Valkey (PORT=8000 HOST=127.0.0.1 PG=18)
	@exec .venv/bin/python -m tools.run

test: environment ## Run the tests (PG=16, ARGS="-k name")
	@exec $(PYTEST) $(ARGS)

test-faults: environment ## Kill and restart servers under load, and look for wrong answers (a few minutes)
	@exec .venv/bin/python -m pytest tests/faults $(ARGS)

test-containers: environment ## Build the images, run them with Compose, and break them (needs Docker)
	@.venv/bin/uv venv --quiet --allow-existing .data/containers
	@.venv/bin/uv pip install --quiet --system-certs --python=.data/containers --require-hashes --requirement=requirements/containers.txt
	@exec .venv/bin/python -m pytest --confcutdir=tests/containers tests/containers $(ARGS)

check: environment ## Lint, check formats, types and the layers
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

bench: environment ## Measure everything; write docs/benchmarks.md and README's table (twelve minutes)
	@exec .venv/bin/python -m benchmarks report

bench-quick: environment ## Print the CPU of the app relative to its floors and the usual template (two minutes)
	@exec .venv/bin/python -m benchmarks quick

bench-cache: environment ## Print the cost of cached responses (two minutes)
	@exec .venv/bin/python -m benchmarks cache

bench-check: environment ## Fail if a request costs more than recorded (RECORD=1 to record)
	@exec .venv/bin/python -m benchmarks check $(if $(RECORD),--record)

bench-soak: environment ## Apply load for a long time and fail if memory grows (MINUTES=60)
	@exec .venv/bin/python -m benchmarks soak --minutes=$(or $(MINUTES),60)

loadtest: environment ## Simulate users with locust and fail if a service objective is missed (USERS=100 SECONDS=60)
	@exec .venv/bin/python -m benchmarks loadtest --users=$(or $(USERS),100) --seconds=$(or $(SECONDS),60)

migration: environment ## Write the migration that the models ask for (NAME="create suppliers")
	@exec .venv/bin/python -m tools.migration "$(NAME)"

check-deploy: environment ## Render the Kubernetes manifests and check them (needs kubectl or kustomize)
	@.venv/bin/python -m tools.manifests
	@exec .venv/bin/python -m pytest tests/deploy

backup-drill: environment ## Dump a database, restore it beside, and compare them (DATABASE_URL=)
	@exec .venv/bin/python -m tools.backup

lock: environment ## Write the lock files anew after a change of pyproject.toml (UPGRADE=1 for the newest versions)
	$(COMPILE) pyproject.toml --output-file=requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra=docs --constraint=requirements/runtime.txt --output-file=requirements/docs.txt
	$(COMPILE) pyproject.toml --extra=docs --group=dev --constraint=requirements/docs.txt --output-file=requirements/development.txt
	$(COMPILE) --group=bench --output-file=requirements/bench.txt
	$(COMPILE) --group=deploy --output-file=requirements/deploy.txt
	$(COMPILE) --group=containers --output-file=requirements/containers.txt

clean: ## Remove .venv, .data (the database!) and all caches
	@sh tools/bootstrap.sh clean

environment: ## Make .venv from the lock file, if it is not there yet
	@sh tools/bootstrap.sh environment
