#!/bin/sh
# Deploys a new image without a failed request: migrates, then replaces the workers, and the replicas one after another.
# Accepts Compose's options: docker/roll.sh -f docker-compose.yml -f docker-compose.production.yml
set -eu

docker compose "$@" run --rm --no-deps migrate
# Before the replicas, which may enqueue jobs that the old workers have no task for.
docker compose "$@" up --detach --no-deps --force-recreate --wait worker
for replica in api-1 api-2 api-3; do
    # Waits until the new replica is ready. If it fails, the others keep serving.
    docker compose "$@" --profile edge up --detach --no-deps --force-recreate --wait "$replica"
done
