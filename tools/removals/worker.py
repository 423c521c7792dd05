"""The worker of the queue where the service is deployed: images, Compose, Kubernetes."""

from tools.project import Place
from tools.removals.removal import blocks, lines

WORKER = "deploy/kubernetes/base/worker"
OVERLAYS = "deploy/kubernetes/overlays"
SCALED = {"production": (4, "minReplicas, value: 2"), "staging": (2, "maxReplicas, value: 1")}

DEPLOYMENT = [
    (Place("docker/entrypoint.sh", " | worker | jobs"), ""),
    (Place("docker/roll.sh", "then replaces the workers, and the replicas one"), "then replaces the replicas one"),
    *lines(
        "docker/roll.sh",
        """\
# Before the replicas, which may enqueue jobs that the old workers have no task for.
docker compose "$@" up --detach --no-deps --force-recreate --wait worker
""",
    ),
    (Place("Dockerfile", " \\\n    JOB_STATUS_FOLDER=/dev/shm/worker"), ""),
    *blocks(
        "docker-compose.yml",
        """
  worker:
    <<: [*image, *confined]
    command: [worker]
    environment: *environment
    depends_on: *needs
    healthcheck:
      <<: *ready
      test: [CMD, healthcheck.py, ready]
    stop_grace_period: 40s # above JOB_GRACE_SECONDS and 5 s for what it interrupts then
    deploy:
      replicas: ${WORKER_REPLICAS:-1}
      resources: { limits: { cpus: "1", memory: 512M, pids: 256 } }
""",
        end="\n\n",
    ),
    *blocks(
        "docker-compose.override.yml",
        """
  worker:
    <<: *development
    command: [worker, --reload]
    environment: { <<: *database, APP_ENV: development, MAIL_BACKEND: console } # its root is read-only
""",
        end="\n\n",
    ),
    (Place("docker-compose.production.yml", "  worker: *replica\n"), ""),
    *((Place(f"{OVERLAYS}/{name}/service/kustomization.yaml", "  - ../../../base/worker\n"), "") for name in SCALED),
    *(
        (
            Place(
                f"{OVERLAYS}/{name}/service/kustomization.yaml",
                f"""\
      - {{op: replace, path: /spec/maxReplicas, value: {most}}}
  - target:
      kind: HorizontalPodAutoscaler
      name: worker
    patch: |
      - {{op: replace, path: /spec/{operation}}}
""",
            ),
            f"      - {{op: replace, path: /spec/maxReplicas, value: {most}}}\n",
        )
        for name, (most, operation) in SCALED.items()
    ),
]
