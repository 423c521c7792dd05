"""Properties of the Kubernetes manifests that no schema checks: they fit the app, its settings and one another.

`make check-deploy` runs it, and `make test` does not: it needs kubectl or kustomize.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from app.cli import app as commands
from app.main import create_app
from app.settings import Settings
from plinth.database import open_database
from plinth.jobs.worker import CLEAN_UP_SECONDS
from plinth.settings import load_settings
from plinth.testing.environment import variables
from tools.manifests import ENVIRONMENTS, PARTS, render

Manifest = dict[str, Any]

SECRETS = {"APP_SECRET_KEY": "s" * 32, "DATABASE_URL": "postgresql://user@db/name?sslmode=verify-full"}
# A default PostgreSQL has 100 connections, 3 of them reserved for superusers.
POSTGRES_CONNECTIONS = 97


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def everything(request: pytest.FixtureRequest) -> list[Manifest]:
    """The resources of both parts of an environment, without duplicates."""
    streams = [yaml.safe_load_all(render(request.param, part)) for part in PARTS]
    return list({(each["kind"], each["metadata"]["name"]): each for stream in streams for each in stream}.values())


def of_kind(everything: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in everything if each["kind"] in kinds]


def only(everything: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The one of its kind; or of those whose name begins so, which a hash may follow."""
    [found] = [each for each in of_kind(everything, kind) if each["metadata"]["name"].startswith(name)]
    return found


def pods(everything: list[Manifest]) -> list[Manifest]:
    return [each["spec"]["template"] for each in of_kind(everything, "Deployment", "Job")]


def containers(everything: list[Manifest]) -> list[Manifest]:
    return [
        container
        for pod in pods(everything)
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
    ]


def container_of(everything: list[Manifest], deployment: str) -> Manifest:
    [container] = only(everything, "Deployment", deployment)["spec"]["template"]["spec"]["containers"]
    return dict(container)


def server(everything: list[Manifest]) -> Manifest:
    return container_of(everything, "api")


def settings_of(everything: list[Manifest], deployment: str) -> Settings:
    """What the container reads: of two sources that have a name, the later one counts."""
    names = [source["configMapRef"]["name"] for source in container_of(everything, deployment)["envFrom"][:-1]]
    with pytest.MonkeyPatch.context() as environment:
        for data in (*(only(everything, "ConfigMap", name)["data"] for name in names), SECRETS):
            assert data is SECRETS or data.keys() <= variables(Settings).keys() - SECRETS.keys()
            for name, value in data.items():
                environment.setenv(name, value)
        return load_settings(Settings)


@pytest.fixture
def settings(everything: list[Manifest]) -> Settings:
    return settings_of(everything, "api")


@pytest.fixture
def worker(everything: list[Manifest]) -> Settings:
    return settings_of(everything, "worker")


def test_the_settings_exist_and_production_starts_with_them(settings: Settings, worker: Settings) -> None:
    for each in (settings, worker):
        assert each.production
        assert each.host == "0.0.0.0"
    assert worker.http == settings.http
    assert worker.job != settings.job


def test_probes_and_commands_exist(everything: list[Manifest]) -> None:
    container = server(everything)
    paths = create_app().openapi()["paths"].keys()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
        assert container[probe]["httpGet"]["port"] in ports
    known = {command.name or command.callback.__name__ for command in commands.registered_commands if command.callback}
    assert {each["args"][0] for each in containers(everything)} == {"serve", "migrate", "worker"} <= known
    program, command = container["lifecycle"]["preStop"]["exec"]["command"]
    assert (program, command in known) == ("app", True)
    of_worker = container_of(everything, "worker")
    wanted = {"startupProbe": "alive", "livenessProbe": "alive", "readinessProbe": "ready"}
    assert {probe: of_worker[probe]["exec"]["command"] for probe in wanted} == {
        probe: ["healthcheck.py", state] for probe, state in wanted.items()
    }


def test_prometheus_finds_the_port_of_the_metrics(everything: list[Manifest], settings: Settings) -> None:
    for name in ("api", "worker"):
        ports = {port["name"]: port["containerPort"] for port in container_of(everything, name)["ports"]}
        annotations = only(everything, "Deployment", name)["spec"]["template"]["metadata"]["annotations"]
        assert annotations == {"prometheus.io/scrape": "true", "prometheus.io/port": str(ports["metrics"])}
        assert ports["metrics"] == settings.metrics.port
    [published] = only(everything, "Service")["spec"]["ports"]
    assert published["targetPort"] == "http"


def test_it_stops_before_it_is_killed(everything: list[Manifest], settings: Settings) -> None:
    pod = only(everything, "Deployment", "api")["spec"]["template"]["spec"]
    times, grace = settings.server, pod["terminationGracePeriodSeconds"]
    for_requests = times.graceful_timeout_seconds * 3 // 4  # as plinth/serving/worker.py sets it
    assert times.drain_seconds < for_requests < times.graceful_timeout_seconds < grace
    assert times.drain_seconds + times.graceful_timeout_seconds < grace
    # `app drain` and the server use the same file.
    mounts = {mount["mountPath"] for mount in server(everything)["volumeMounts"]}
    assert times.drain_file
    assert str(times.drain_file.parent) in mounts


def test_a_worker_gives_its_jobs_back_before_it_is_killed(everything: list[Manifest], worker: Settings) -> None:
    pod = only(everything, "Deployment", "worker")["spec"]["template"]["spec"]
    assert worker.job.grace_seconds + CLEAN_UP_SECONDS < pod["terminationGracePeriodSeconds"]


def test_the_probes_see_the_files_of_a_worker(everything: list[Manifest], worker: Settings) -> None:
    container = container_of(everything, "worker")
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > worker.database.wait_seconds
    in_memory = {
        volume["name"]
        for volume in only(everything, "Deployment", "worker")["spec"]["template"]["spec"]["volumes"]
        if volume["emptyDir"].get("medium") == "Memory"
    }
    [mount] = [mount for mount in container["volumeMounts"] if mount["name"] in in_memory]
    assert worker.job.status_folder
    assert worker.job.status_folder.is_relative_to(mount["mountPath"])
    assert worker.job.processes <= float(container["resources"]["limits"]["cpu"])


def test_it_has_time_to_start_and_to_answer(everything: list[Manifest], settings: Settings) -> None:
    container = server(everything)
    startup, readiness = container["startupProbe"], container["readinessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > settings.database.connect_timeout_seconds
    # The readiness check has a timeout of one second.
    assert 1 < readiness["timeoutSeconds"] <= readiness["periodSeconds"]
    assert settings.workers <= float(container["resources"]["limits"]["cpu"])


async def test_the_connections_of_all_pods_fit_a_default_postgresql(
    everything: list[Manifest], settings: Settings, worker: Settings
) -> None:
    total = migration = 1
    queue = 1
    for name, each, processes in (("api", settings, settings.workers), ("worker", worker, worker.job.processes)):
        # During a rollout, one additional pod starts while another one stops.
        rollout = only(everything, "Deployment", name)["spec"]["strategy"]["rollingUpdate"]
        most = only(everything, "HorizontalPodAutoscaler", name)["spec"]["maxReplicas"]
        most += 2 * rollout["maxSurge"] + rollout["maxUnavailable"]
        async with open_database(each.database, "test") as database:
            beside = database.unpooled_connections if name == "api" else queue
            total += most * processes * (database.pooled_connections + beside)
    assert migration < total <= POSTGRES_CONNECTIONS


def selectors(everything: list[Manifest]) -> Iterator[tuple[str, dict[str, str]]]:
    for each in everything:
        name, spec = f"{each['kind']} {each['metadata']['name']}", each.get("spec", {})
        if each["kind"] == "Service":
            yield name, spec["selector"]
        elif each["kind"] in {"Deployment", "PodDisruptionBudget"}:
            yield name, spec["selector"]["matchLabels"]
        elif each["kind"] == "NetworkPolicy":
            yield name, spec["podSelector"].get("matchLabels", {})
        for spread in spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
            yield f"{name}'s spread", spread["labelSelector"]["matchLabels"]


def test_selectors_match_their_pods(everything: list[Manifest]) -> None:
    service, worker, migration = (
        only(everything, kind, name)["spec"]["template"]["metadata"]["labels"]
        for kind, name in (("Deployment", "api"), ("Deployment", "worker"), ("Job", ""))
    )
    of_all = {f"NetworkPolicy {name}" for name in ("deny-all", "to-servers", "from-prometheus")}
    for name, selector in selectors(everything):
        of_worker = name.partition(" ")[2].startswith("worker")
        assert (selector.items() <= service.items()) == (not of_worker), name
        assert (selector.items() <= worker.items()) == (of_worker or name in of_all), name
        assert (selector.items() <= migration.items()) == (name in of_all), name


def test_references_resolve(everything: list[Manifest]) -> None:
    names = {(each["kind"], each["metadata"]["name"]) for each in everything}
    for pod in pods(everything):
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in names
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        assert volumes == {mount["name"] for each in pod["spec"]["containers"] for mount in each["volumeMounts"]}
        sources = [source for each in pod["spec"]["containers"] for source in each["envFrom"]]
        assert {"secretRef": {"name": "api-secrets"}} in sources
        assert all(("ConfigMap", each["configMapRef"]["name"]) in names for each in sources if "configMapRef" in each)
    for name in ("api", "worker"):
        target = only(everything, "HorizontalPodAutoscaler", name)["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) == ("Deployment", name)
        assert ("PodDisruptionBudget", name) in names
    ports = {port["name"]: port["containerPort"] for port in server(everything)["ports"]}
    [port] = only(everything, "Service")["spec"]["ports"]
    assert port["targetPort"] in ports
    ingress = only(everything, "Ingress")["spec"]
    assert [host for tls in ingress["tls"] for host in tls["hosts"]] == [rule["host"] for rule in ingress["rules"]]
    backend = ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert (("Service", backend["name"]) in names, backend["port"]["name"]) == (True, port["name"])
    admitted = {
        each["metadata"]["name"]: [port["port"] for port in each["spec"]["ingress"][0]["ports"]]
        for each in of_kind(everything, "NetworkPolicy")
        if each["spec"].get("ingress")
    }
    assert admitted == {"from-proxy": [ports["http"]], "from-prometheus": [ports["metrics"]]}
    namespace = only(everything, "Namespace")["metadata"]["name"]
    assert {each["metadata"].get("namespace", namespace) for each in everything} == {namespace}


def test_privileges_are_minimal(everything: list[Manifest]) -> None:
    assert not of_kind(everything, "Secret")
    assert only(everything, "ServiceAccount")["automountServiceAccountToken"] is False
    for pod in pods(everything):
        assert pod["spec"]["automountServiceAccountToken"] is False
        context = pod["spec"]["securityContext"]
        assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 10001, 10001)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(everything):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all(container["resources"][each].keys() == {"cpu", "memory"} for each in ("requests", "limits"))
    deny = next(each for each in of_kind(everything, "NetworkPolicy") if each["metadata"]["name"] == "deny-all")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_migration_has_the_version_of_the_service(everything: list[Manifest]) -> None:
    [image] = {container["image"] for container in containers(everything)}
    assert only(everything, "Job")["metadata"]["name"] == f"migrate-{image.partition(':')[2]}"
