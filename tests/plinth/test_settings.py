import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from plinth.errors import ConfigurationError
from plinth.serving.settings import available_cores
from plinth.settings import DEVELOPMENT_SECRET_KEY, load_settings
from plinth.testing.environment import ROOT, variables

SAFE = {
    "APP_ENV": "production",
    "APP_SECRET_KEY": "k" * 32,
    "DATABASE_URL": "postgresql://me:secret@db.example.com/shop?sslmode=verify-full",
    "HTTP_ALLOWED_HOSTS": "api.example.com",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No variable of ours is set, and no `.env` lies in the folder."""
    for name in variables(Settings):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def set_all(environment: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)


def faults(environment: pytest.MonkeyPatch, **changes: str) -> list[str]:
    set_all(environment, SAFE | changes)
    with pytest.raises(ConfigurationError) as refused:
        load_settings(Settings)
    return [line.partition(":")[0] for line in str(refused.value).splitlines()]


def test_a_variable_is_its_group_and_its_field(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {"DATABASE_POOL_SIZE": "7", "PORT": "9000", "LOG_LEVEL": "ERROR", "HTTP_DOCS": "no"})
    settings = load_settings(Settings)
    assert (settings.database.pool_size, settings.port, settings.log.level) == (7, 9000, "ERROR")
    assert settings.http.docs is False


def test_dotenv_is_read_and_the_environment_wins(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setitem(Settings.model_config, "env_file", ".env")  # which the suite switches off
    (tmp_path / ".env").write_text("PORT=1111\nAPP_NAME=From the file\n")
    environment.setenv("PORT", "2222")
    settings = load_settings(Settings)
    assert (settings.port, settings.app.name) == (2222, "From the file")


def test_a_secret_may_be_a_file_and_the_environment_wins(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setitem(Settings.model_config, "secrets_dir", tmp_path)  # which the suite switches off
    (tmp_path / "app_secret_key").write_text("of the file\n")
    (tmp_path / "database_url").write_text("postgresql://of/file\n")
    environment.setenv("DATABASE_URL", "postgresql://of/environment")
    settings = load_settings(Settings)
    assert settings.app.signing_key.get_secret_value() == "of the file"
    assert settings.database.url.get_secret_value() == "postgresql://of/environment"


def test_an_empty_variable_is_not_set(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, {"REDIS_URL": "", "WEB_CONCURRENCY": ""})
    assert load_settings(Settings).redis.url is None


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_any_spelling_of_a_postgresql_url_is_taken(environment: pytest.MonkeyPatch, scheme: str) -> None:
    environment.setenv("DATABASE_URL", f"{scheme}://me:p%40ss@db:5433/shop?sslmode=require")
    address = load_settings(Settings).database.address
    assert (address.hosts, address.ports, address.tls) == (["db"], [5433], {"sslmode": "require"})
    assert address.arguments == {"user": "me", "password": "p@ss", "database": "shop"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://db/shop"),
        ("DATABASE_URL", "nonsense"),
        ("REDIS_URL", "cache:6379"),
        ("DATABASE_POOL_SIZE", "many"),
        ("DATABASE_POOL_SIZE", "0"),
        ("PORT", "70000"),
        ("APP_ENV", "staging"),
        ("LOG_LEVEL", "LOUD"),
        ("HTTP_GZIP_LEVEL", "10"),
        *(("HTTP_TRUSTED_PROXIES", value) for value in ("proxy", "10.0.0.0/33", "10.0.0.1/8", "*, 10.0.0.1", "-1")),
        *(("HTTP_TRUSTED_PROXIES", value) for value in ("fe80::1%eth0", "10.0.0.0/8, fe80::1%1", "100", "9" * 5000)),
        *(
            ("HTTP_ALLOWED_HOSTS", value)
            for value in (".a.example", "a..example", "-", "*..a", "a.example, -a", "*.-a")
        ),
        *(("HTTP_ROOT_PATH", value) for value in ("/.", "/..", "/a/../b", "/a/.", "/./a")),
        *(
            ("REDIS_URL", f"rediss://cache/0?{wrong}")
            for wrong in ("ssl_cert_reqs=maybe", "ssl_check_hostname=perhaps")
        ),
        *(
            ("REDIS_URL", f"rediss://cache/0?{name}=/missing")
            for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        ),
        *(("REDIS_URL", f"redis://cache{database}") for database in ("/٣", "?db=٣")),
        *(("HTTP_ALLOWED_HOSTS", value) for value in ("https://a.example", "a.example:80", "a/b", "*.*", "a*", "ä")),
        *(("HTTP_ROOT_PATH", value) for value in ("shop", "/", "/shop/", "/a b", "//a", "https://a/b")),
    ],
)
def test_a_wrong_value_is_named(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert faults(environment, **{name: value}) == [name]


def test_safe_production_settings_are_taken(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, SAFE)
    settings = load_settings(Settings)
    assert settings.production
    assert not settings.docs_enabled
    assert settings.log_format == "json"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("APP_SECRET_KEY", {"APP_SECRET_KEY": DEVELOPMENT_SECRET_KEY}),
        ("APP_SECRET_KEY", {"APP_SECRET_KEY": "k" * 31}),
        ("APP_DEBUG", {"APP_DEBUG": "true"}),
        ("HTTP_ALLOWED_HOSTS", {"HTTP_ALLOWED_HOSTS": " , "}),
        ("APP_EXAMPLE_DATA", {"APP_EXAMPLE_DATA": "1"}),
        ("CORS_ORIGINS", {"CORS_ORIGINS": "https://a.example, *", "CORS_CREDENTIALS": "true"}),
        ("DATABASE_URL", {"DATABASE_URL": ""}),
        ("DATABASE_URL", {"DATABASE_URL": "postgresql://db.example.com/shop"}),
        ("DATABASE_URL", {"DATABASE_URL": "postgresql://db.example.com/shop?sslmode=prefer"}),
        ("DATABASE_URL", {"DATABASE_URL": "postgresql://db.example.com/shop?sslmode=disable"}),
        ("DATABASE_DIRECT_URL", {"DATABASE_DIRECT_URL": "postgresql://db.example.com/shop"}),
        ("DATABASE_REPLICA_URL", {"DATABASE_REPLICA_URL": "postgresql://db.example.com/shop"}),
    ],
)
def test_production_refuses(environment: pytest.MonkeyPatch, name: str, changes: dict[str, str]) -> None:
    assert faults(environment, **changes) == [name]
    environment.setenv("APP_ENV", "development")
    load_settings(Settings)


def test_production_names_every_fault_at_once(environment: pytest.MonkeyPatch) -> None:
    wrong = {
        "APP_SECRET_KEY": "short",
        "APP_DEBUG": "true",
        "APP_EXAMPLE_DATA": "true",
        "CORS_ORIGINS": "*",
        "CORS_CREDENTIALS": "true",
        "DATABASE_URL": "postgresql://db/shop",
    }
    assert sorted(faults(environment, **wrong)) == sorted(wrong.keys() - {"CORS_CREDENTIALS"})


def test_docs_without_their_files_are_refused(environment: pytest.MonkeyPatch) -> None:
    environment.setattr("plinth.settings.find_spec", lambda _: None)
    assert faults(environment, HTTP_DOCS="true") == ["HTTP_DOCS"]


def test_plaintext_is_allowed_explicitly(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, SAFE | {"DATABASE_URL": "postgresql://db/shop", "DATABASE_ALLOW_PLAINTEXT": "true"})
    load_settings(Settings)


@pytest.mark.parametrize(
    "command", [["app", "serve"], ["app", "migrate"], ["gunicorn", "-c", str(ROOT / "gunicorn.conf.py")]]
)
def test_a_refused_start_tells_why_and_nothing_else(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env={"APP_ENV": "production", "PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    sentence = "DATABASE_URL: is missing; set it to postgresql://user:password@host:5432/name?sslmode=verify-full"
    assert sentence in lines
    assert [line for line in lines if not re.match("[A-Z_]+: ", line)] == []


def test_secrets_are_not_shown(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, SAFE | {"REDIS_URL": "redis://:hush@cache/0"})
    shown = repr(load_settings(Settings))
    for secret in ("me:secret", "hush", "k" * 32):
        assert secret not in shown


def test_mails_go_to_files_in_development_and_to_the_server_in_production(environment: pytest.MonkeyPatch) -> None:
    assert load_settings(Settings).mail.backend == "file"
    set_all(environment, SAFE | {"HTTP_DOCS": "no"})
    assert load_settings(Settings).mail.backend == "smtp"
    assert faults(environment, MAIL_TLS="none", MAIL_HOST="smtp.example.com") == ["MAIL_SENDER", "MAIL_TLS"]


def test_plans_are_logged_in_development_unless_it_is_set_otherwise(environment: pytest.MonkeyPatch) -> None:
    assert load_settings(Settings).database.explain_slow is True
    environment.setenv("DATABASE_EXPLAIN_SLOW", "false")
    assert load_settings(Settings).database.explain_slow is False
    environment.delenv("DATABASE_EXPLAIN_SLOW")
    set_all(environment, SAFE | {"HTTP_DOCS": "no"})
    assert load_settings(Settings).database.explain_slow is False


def test_every_setting_is_described() -> None:
    assert [name for name, (_, description) in variables(Settings).items() if not description.endswith(".")] == []


def test_the_example_file_holds_every_setting_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    shown = dict(line.removeprefix("#").split("=", 1) for line in lines if "=" in line and not line.startswith("# "))
    expected = {name: "" if default is None else str(default) for name, (default, _) in variables(Settings).items()}
    assert {name: value.lower() for name, value in shown.items()} == {
        name: value.lower() for name, value in expected.items()
    }
    for _, description in variables(Settings).values():
        assert f"# {description}" in lines


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("", 8)]
)
def test_workers_follow_the_cores_of_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("plinth.serving.settings.CPU_LIMIT", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text(limit)
    assert available_cores() == cores
    assert Settings(_env_file=None, web_concurrency=None).workers == cores
    assert Settings(_env_file=None, web_concurrency=3).workers == 3


@pytest.mark.parametrize(
    ("name", "identifier"),
    [("Billing API", "billing_api"), (" 2nd  Try! ", "2nd_try"), ("Über", "uber"), ("東京", "service")],
)
def test_the_database_and_the_namespace_are_named_after_the_service(
    environment: pytest.MonkeyPatch, name: str, identifier: str
) -> None:
    environment.setenv("APP_NAME", name)
    settings = load_settings(Settings)
    assert settings.database.url.get_secret_value() == f"postgresql://postgres@127.0.0.1:5432/{identifier}"
    assert settings.database.direct.url == settings.database.url
    assert settings.cache.namespace == identifier
    set_all(environment, {"DATABASE_URL": "postgresql://db/shop", "CACHE_NAMESPACE": "shop"})
    named = load_settings(Settings)
    assert (named.database.url.get_secret_value(), named.cache.namespace) == ("postgresql://db/shop", "shop")


def test_a_signing_key_is_asked_for_where_it_is_used(environment: pytest.MonkeyPatch) -> None:
    set_all(environment, SAFE)
    assert load_settings(Settings).app.signing_key.get_secret_value() == "k" * 32
    environment.delenv("APP_SECRET_KEY")
    without = load_settings(Settings)
    with pytest.raises(ConfigurationError, match=r"^APP_SECRET_KEY: is missing"):
        _ = without.app.signing_key
    environment.setenv("APP_ENV", "development")
    assert load_settings(Settings).app.signing_key.get_secret_value() == DEVELOPMENT_SECRET_KEY
