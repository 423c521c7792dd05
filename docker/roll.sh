#!/bin/sh
# Brings a new image into service without a failed request: migrates, then replaces the replicas one after another.
# Takes Compose's options: docker/roll.sh -f docker-compose.yml -f docker-compose.production.yml
set -eu

docker compose "$@" run --rm --no-deps migrate
for replica in api-1 api-2 api-3; do
    # Returns when the new one is ready, and fails if it does not get there: the others serve on.
    docker compose "$@" --profile edge up --detach --no-deps --force-recreate --wait "$replica"
done
