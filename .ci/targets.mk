# The template's own targets. `make init` removes this file with all that they need.

.PHONY: test-containers test-deploy drill bench bench-quick bench-cache bench-check bench-soak loadtest lock-template

test-containers: environment ## Build the images, run them with Compose, and break them (needs Docker)
	@.venv/bin/uv venv --quiet --allow-existing .data/containers
	@.venv/bin/uv pip install --quiet --system-certs --python=.data/containers --require-hashes --requirement=requirements/containers.txt
	@exec .venv/bin/python -m pytest --confcutdir=tests/containers tests/containers $(ARGS)

test-deploy: environment ## Test the Kubernetes manifests against the app's settings and routes
	@exec .venv/bin/python -m pytest tests/deploy $(ARGS)

drill: environment ## Clone, `make init`, check, test, add a resource, check and test again (minutes)
	@exec .venv/bin/python -m tests.tools.drill

bench: environment ## Measure everything and write docs/benchmarks.md (twenty minutes)
	@exec .venv/bin/python -m benchmarks report

bench-quick: environment ## Measure the app against its floors, and print it (under two minutes)
	@exec .venv/bin/python -m benchmarks quick

bench-cache: environment ## Measure the response cache, and print it (three minutes)
	@exec .venv/bin/python -m benchmarks cache

bench-check: environment ## Fail where a request costs more than is recorded (RECORD=1 to record)
	@exec .venv/bin/python -m benchmarks check $(if $(RECORD),--record)

bench-soak: environment ## Load the app for long, and check that its memory stays flat (MINUTES=60)
	@exec .venv/bin/python -m benchmarks soak --minutes=$(or $(MINUTES),60)

loadtest: environment ## Let locust's users browse, with service objectives as pass marks (USERS=100 SECONDS=60)
	@exec .venv/bin/python -m benchmarks loadtest --users=$(or $(USERS),100) --seconds=$(or $(SECONDS),60)

lock: lock-template
lock-template: environment ## Update the lock files of the benchmarks and the container tests (part of `make lock`)
	$(COMPILE) --group=bench --output-file=requirements/bench.txt
	$(COMPILE) --group=containers --output-file=requirements/containers.txt
