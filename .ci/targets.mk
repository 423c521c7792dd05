# The template's own targets. `make init` removes this file with all that they need.

.PHONY: test-containers test-deploy test-observability drill drill-update bench bench-quick bench-cache bench-data bench-jobs bench-observability bench-security bench-check bench-soak loadtest lock-template

test-containers: environment ## Build the images, run them with Compose, and break them (needs Docker)
	@.venv/bin/uv venv --quiet --allow-existing .data/containers
	@.venv/bin/uv pip install --quiet --system-certs --python=.data/containers --require-hashes --requirement=requirements/containers.txt
	@exec .venv/bin/python -m pytest --confcutdir=tests/containers tests/containers $(ARGS)

test-deploy: environment ## Test the Kubernetes manifests against the app's settings and routes
	@exec .venv/bin/python -m pytest tests/deploy $(ARGS)

test-observability: environment ## Test the alerts, and the dashboard by a real Prometheus under load (needs promtool)
	@exec .venv/bin/python -m pytest tests/observability $(ARGS)

drill: environment ## Clone, `make init`, add resources, remove the example; check and test after each (minutes)
	@exec .venv/bin/python -m tests.tools.drill

drill-update: environment ## Start by Copier, update a project with edits of a user, and update one twice (minutes)
	@exec .venv/bin/python -m tests.tools.drill_update

bench: environment ## Measure everything; write docs/benchmarks.md and README's table (twelve minutes)
	@exec .venv/bin/python -m benchmarks report

bench-quick: environment ## Print the CPU of the app relative to its floors and the usual template (two minutes)
	@exec .venv/bin/python -m benchmarks quick

bench-cache: environment ## Print the cost of cached responses (two minutes)
	@exec .venv/bin/python -m benchmarks cache

bench-data: environment ## Fail if searches, imports, pages or exports cost more than promised (PRODUCTS=1000000, minutes)
	@exec .venv/bin/python -m benchmarks data --products=$(or $(PRODUCTS),1000000)

bench-jobs: environment ## Print the cost of enqueueing, and how fast a worker is (a minute)
	@exec .venv/bin/python -m benchmarks jobs

bench-observability: environment ## Fail if logs and metrics cost a request more than promised (two minutes)
	@exec .venv/bin/python -m benchmarks observability

bench-security: environment ## Fail if login times show which accounts exist, or many at once fail others (minutes)
	@exec .venv/bin/python -m benchmarks security

bench-check: environment ## Fail if a request costs more than recorded (RECORD=1 to record)
	@exec .venv/bin/python -m benchmarks check $(if $(RECORD),--record)

bench-soak: environment ## Apply load for a long time and fail if memory grows (MINUTES=60)
	@exec .venv/bin/python -m benchmarks soak --minutes=$(or $(MINUTES),60)

loadtest: environment ## Simulate users with locust and fail if a service objective is missed (USERS=100 SECONDS=60)
	@exec .venv/bin/python -m benchmarks loadtest --users=$(or $(USERS),100) --seconds=$(or $(SECONDS),60)

lock: lock-template
lock-template: environment ## Update the lock files of the template's own environments (part of `make lock`)
	$(COMPILE) --group=bench --output-file=requirements/bench.txt
	$(COMPILE) --group=containers --output-file=requirements/containers.txt
	$(COMPILE) --group=copier --output-file=requirements/copier.txt
