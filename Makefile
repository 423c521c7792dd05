# The commands of the project; their work is done in tools/. `make` alone lists them.

# Without bytecode, each of the hundreds of processes that tests start compiles all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# More pytest workers than cores: many tests wait for processes that they start. A worker that is done takes over tests
# of the others, so that none waits behind a long one.
PYTEST = .venv/bin/python -m pytest -n 3 --dist=worksteal
COMPILE = .venv/bin/uv pip compile --quiet --system-certs --universal --python-version=3.11 --generate-hashes \
	--no-header --no-annotate $(if $(UPGRADE),--upgrade)
# NAME="Billing API" on make's command line becomes --name="Billing API"; a variable of the environment is ignored.
option = $(if $(filter command,$(origin $(1))),--$(2)="$$$(1)")

.PHONY: help init update run test test-app test-faults check fix migration openapi-check check-deploy backup-drill audit lock clean environment

help: ## List the targets
	@awk -F ': .*## |: ## ' '/^[a-z-]+: .*## / {printf "make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

init: ## Make the project yours (NAME="Billing API", DESCRIPTION=, AUTHOR=, LICENCE_HOLDER=, IMAGE=, KEEP=1)
	@sh tools/bootstrap.sh init $(call option,NAME,name) $(call option,DESCRIPTION,description) \
		$(call option,AUTHOR,author) $(call option,LICENCE_HOLDER,licence-holder) $(call option,IMAGE,image) \
		$(if $(KEEP),--keep)

update: ## Update plinth, merge what is shared (TO= FROM= SOURCE= PROJECT= DRY_RUN=1 OVERWRITE=1 FINISH=1)
	@sh tools/bootstrap.sh update $(call option,TO,to) $(call option,FROM,from) $(call option,SOURCE,source) \
		$(call option,PROJECT,project) $(if $(DRY_RUN),--dry-run) $(if $(OVERWRITE),--overwrite) $(if $(FINISH),--finish)

run: environment ## Serve with reload, on its own PostgreSQL and Valkey (PORT=8000 HOST=127.0.0.1 PG=18)
	@exec .venv/bin/python -m tools.run

test: environment ## Run all tests (PG=16, ARGS="-k name")
	@exec $(PYTEST) $(ARGS)

test-app: environment ## Run the tests of app/ (PG=16, ARGS="-k name")
	@exec $(PYTEST) tests/app $(ARGS)

test-faults: environment ## Break servers under load, and check every answer (a quarter of an hour; RECORD=1)
	@exec $(if $(RECORD),env RECORD=1) .venv/bin/python -m pytest tests/faults $(ARGS)

check: environment ## Check style, formatting, types, the rules between packages, and migrations
	@failed=; for tool in "ruff check ." "ruff format --check ." mypy lint-imports "python -m tools.check_migrations"; do \
		echo ".venv/bin/$$tool"; .venv/bin/$$tool || failed="$$failed\n  $$tool"; \
	done; test -z "$$failed" || { printf "Failed:$$failed\n" >&2; exit 1; }

fix: environment ## Correct style and formatting where the tools can; `make check` shows the rest
	@.venv/bin/ruff check --fix --exit-zero .
	@.venv/bin/ruff format .

migration: environment ## Write a migration for what changed in the models (NAME="create suppliers")
	@exec .venv/bin/python -m tools.migration "$(NAME)"

openapi-check: environment ## Fail if the API breaks its clients; otherwise record it in openapi.json (ACCEPT=1 in any case)
	@exec .venv/bin/python -m tools.openapi $(if $(ACCEPT),--record)

check-deploy: environment ## Render and validate the Kubernetes manifests (needs kubectl or kustomize)
	@exec .venv/bin/python -m tools.manifests

backup-drill: environment ## Dump a database, restore it beside the original, and compare them (DATABASE_URL=)
	@exec .venv/bin/python -m tools.backup

audit: environment ## Write a bill of materials; fail if a package has a known vulnerability (ARGS="--ignore-vuln=ID")
	@exec .venv/bin/python -m tools.audit $(ARGS)

lock: environment ## Update the lock files after a change of pyproject.toml (UPGRADE=1 for the newest versions)
	@# First, since OpenTelemetry's instrumentations need one version of its API, which FastAPI needs as well.
	$(COMPILE) pyproject.toml --extra=tracing --extra=sentry --extra=profiling --output-file=requirements/observability.txt
	$(COMPILE) pyproject.toml --constraint=requirements/observability.txt --output-file=requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra=docs --constraint=requirements/runtime.txt --output-file=requirements/docs.txt
	$(COMPILE) pyproject.toml --extra=s3 --constraint=requirements/runtime.txt --output-file=requirements/s3.txt
	$(COMPILE) pyproject.toml --extra=docs --extra=s3 --extra=tracing --extra=sentry --extra=profiling --group=dev --constraint=requirements/docs.txt --constraint=requirements/s3.txt --constraint=requirements/observability.txt --output-file=requirements/development.txt
	$(COMPILE) --group=deploy --output-file=requirements/deploy.txt
	$(COMPILE) --group=audit --output-file=requirements/audit.txt

clean: ## Remove .venv, .data (the database!) and all caches
	@sh tools/bootstrap.sh clean

environment: ## Create or update .venv from the lock file
	@sh tools/bootstrap.sh environment

-include .ci/targets.mk
