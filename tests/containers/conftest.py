"""Builds and runs the real images and Compose projects: `make test-containers`. `make test` skips them."""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.edge import posted
from tests.containers.support import IMAGE, ROOT, Compose, attempt, copy_checkout, docker, free_port

# All requests come from one address.
UNLIMITED = "LIMIT_READS=off\nLIMIT_WRITES=off\n"


def pytest_configure(config: pytest.Config) -> None:
    if shutil.which("docker") is None:
        raise pytest.UsageError("`make test-containers` needs Docker: install it, with its Compose plugin.")
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        code, output = attempt(command)
        if code:
            raise pytest.UsageError(
                f"`make test-containers` needs Docker, but `{' '.join(command)}` failed: {output.splitlines()[-1]}"
            )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed"):
        for name, figure in report.user_properties:
            terminalreporter.write_line(f"{name}: {figure}")


@pytest.fixture(scope="session", autouse=True)
def images() -> Iterator[None]:
    """Remove the images afterwards. Their layers stay in the build cache, which makes the next run faster."""
    yield
    ours = docker("images", "--quiet", f"--filter=reference={IMAGE}*").split()
    if ours:
        docker("image", "rm", "--force", *set(ours))


@pytest.fixture(scope="session")
def image() -> str:
    """The production image."""
    docker("build", "--quiet", f"--tag={IMAGE}", ".")
    return IMAGE


@pytest.fixture(scope="session")
def nginx_image() -> str:
    docker("build", "--quiet", f"--tag={IMAGE}-nginx", "--file=docker/nginx/Dockerfile", ".")
    return f"{IMAGE}-nginx"


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout that tests may change."""
    return copy_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="session")
def production(image: str, nginx_image: str, checkout: Path) -> Iterator[Compose]:
    """Nginx in front of three replicas, as in production, with an empty database."""
    folder = checkout / "secrets"
    folder.mkdir(mode=0o700)
    password = secrets.token_hex(16)
    url = f"postgresql://service:{password}@postgres:5432/service"
    tls = ["-subj", "/CN=api.test", "-addext", "subjectAltName=DNS:api.test"]
    tls += ["-keyout", "/out/tls_key", "-out", "/out/tls_certificate"]
    texts = {"app_secret_key": secrets.token_hex(32), "postgres_password": password, "database_url": url}
    for name, text in (texts | {"database_direct_url": url}).items():
        (folder / name).write_text(f"{text}\n")
    openssl = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days=2"]
    made = docker(
        "run", "--rm", f"--user={os.getuid()}:{os.getgid()}", f"--volume={folder}:/out", "--entrypoint=openssl",
        nginx_image, *openssl, *tls,
    )  # fmt: skip
    for file in folder.iterdir():
        file.chmod(0o644)
    assert (folder / "tls_key").exists(), made
    (checkout / "production.env").write_text(UNLIMITED)
    options = ["--file=docker-compose.yml", "--file=docker-compose.production.yml", "--profile=edge"]
    environ = {
        "IMAGE": image,
        "NGINX_IMAGE": nginx_image,
        "EDGE_NETWORK": "10.203.18",
        "EDGE_HTTP_PORT": str(free_port()),
        "EDGE_HTTPS_PORT": str(free_port()),
        "REQUESTS_PER_SECOND": "100000",
    }
    with Compose(checkout, "containers-test-production", options, environ) as project:
        project("up", "--detach", "--wait")
        yield project


@pytest.fixture(scope="session")
def authorization(production: Compose) -> str:
    """Of an administrator, as the first one of a service is made."""
    account = {"email": "ada@api.test", "password": "a lamp that shines"}
    create = f"printf %s '{account['password']}' | app create-admin {account['email']}"
    production.inside("api-1", "sh", "-c", create)
    return f"Bearer {posted(production, 200, '/api/auth/login', account)['access_token']}"


@pytest.fixture(scope="session")
def linters() -> Path:
    """The folder where `make test-containers` installs the linters."""
    return ROOT / ".data" / "containers" / "bin"
