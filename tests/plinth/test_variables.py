"""Whatever stands in the environment, in `.env` or in a secret file: it is used, or named in one sentence."""

import codecs
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from app.settings import Settings
from plinth.cache import open_redis
from plinth.database.connections import driver_arguments
from plinth.errors import ConfigurationError
from plinth.settings import load_settings
from plinth.testing.environment import ROOT, variables
from plinth.variables import group_of, unknown_variables

NAMES = sorted(variables(Settings))
GROUPS = sorted(name.upper() for name, field in Settings.model_fields.items() if group_of(field))
SECRETS = {"APP_SECRET_KEY", "DATABASE_URL", "DATABASE_DIRECT_URL", "DATABASE_REPLICA_URL", "REDIS_URL"}


@contextmanager
def given_only(environment: Mapping[str, str], dotenv: bytes | None = None) -> Iterator[type[Settings]]:
    """Settings that read nothing but these variables and this `.env`, and the folder as their secrets."""
    with TemporaryDirectory() as folder, patch.dict(os.environ, environment, clear=True):
        if dotenv is not None:
            (Path(folder) / ".env").write_bytes(dotenv)

        class Isolated(Settings):
            model_config = {"env_file": str(Path(folder) / ".env"), "secrets_dir": folder}  # noqa: RUF012

        yield Isolated


def refused(settings: type[Settings]) -> list[str]:
    """The names of the variables in the sentences; none where the settings load."""
    try:
        loaded = load_settings(settings)
    except ConfigurationError as error:
        lines = str(error).splitlines()
        assert lines
        for line in lines:
            assert re.match(r"(\.env|[A-Z_]+): \S", line), lines
        without_values = error.__context__ is None or error.__suppress_context__
        assert without_values, "the context quotes the values"
        return [line.partition(":")[0] for line in lines]
    driver_arguments(loaded.database, loaded.app.name)
    assert loaded.workers
    return []


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
NUMBERS = st.one_of(st.integers(), st.floats()).map(str)
ODD = st.sampled_from(
    [
        *("inf", "nan", "-1", "0", "1e400", "9" * 400, "true", "None", "null", "[]", "{}", "\udcff\udcfe", " ", "٣"),
        *("postgresql://me:hunter2@h:x/d", "redis://:hunter2@h:x", "http://hunter2", "*", "/", "::", "a,b", "${X"),
    ]
)


@given(name=st.sampled_from(NAMES), value=st.one_of(TEXTS, NUMBERS, ODD))
def test_a_value_is_used_or_named(name: str, value: str) -> None:
    with given_only({name: value}) as settings:
        assert set(refused(settings)) <= {name}


@given(name=st.sampled_from(sorted(SECRETS)), more=st.text(st.characters(categories=["L", "N"])))
def test_no_message_shows_a_secret(name: str, more: str) -> None:
    value = f"hunter2{more}"  # and not just any word, which a message may hold
    texts = (
        value,
        f"postgresql://me:{value}/@h/d",
        f"redis://:{value}@h:port/0",
        f"redis://:{value}",
        f"mysql://{value}",
    )
    for text in texts:
        with given_only({name: text, "APP_ENV": "production"}) as settings:
            try:
                shown = repr(load_settings(settings))
            except ConfigurationError as error:
                shown = str(error)
            assert "hunter2" not in shown


ENCODINGS = {
    **dict.fromkeys(("utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "latin-1", "cp1252"), b""),
    "utf-16-le, marked": codecs.BOM_UTF16_LE,
    "utf-16-be, marked": codecs.BOM_UTF16_BE,
    "utf-32-le, marked": codecs.BOM_UTF32_LE,
    "utf-32-be, marked": codecs.BOM_UTF32_BE,
}


@given(name=st.text(st.characters(max_codepoint=0xFF, categories=["L"]), min_size=1))
@example(name="Über")
@example(name="plain")
@example(name="Âµ")  # in latin-1 the bytes of another letter in UTF-8, which cannot be told apart
@settings(max_examples=10)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_in_any_encoding_is_read_or_named(encoding: str, name: str) -> None:
    text = f"APP_NAME='{name}'\r\n# A comment\r\nexport PORT=1234\r\n"
    codec, _, marked = encoding.partition(", ")
    with given_only({}, ENCODINGS[encoding] + text.encode(codec)) as settings:
        if (names := refused(settings)) == []:
            loaded = load_settings(settings)
            read = text.encode(codec).decode("utf-8" if codec in {"latin-1", "cp1252"} else codec)
            assert f"APP_NAME='{loaded.app.name}'" in read
            assert loaded.port == 1234
        else:
            assert names[0] in {"APP_NAME", ".env"}
            assert not marked
            assert codec not in {"utf-8", "utf-8-sig"}


@given(st.binary(max_size=60))
def test_any_bytes_in_the_file_are_read_or_named(raw: bytes) -> None:
    with given_only({}, b"APP_NAME=" + raw) as settings:
        try:
            load_settings(settings)
        except ConfigurationError as error:
            named = re.match(r"(\.env|[A-Z_]+): \S", str(error))
            assert named


@pytest.mark.parametrize(
    ("line", "names"),
    [
        (b"APP_NAME='not closed", ["APP_NAME"]),
        (b"PORT=many", ["PORT"]),
        (b"APP_NAME", ["APP_NAME"]),
        (b"= 1", [".env"]),
        (b"DATABASE_URL=\xff", ["DATABASE_URL"]),
        (b"APP_NAME=a\0b", ["APP_NAME"]),
        (b"app_name=lower", []),
        (b"", []),
    ],
)
def test_a_line_that_cannot_be_read_is_named(line: bytes, names: list[str]) -> None:
    with given_only({}, b"LOG_LEVEL=info\n" + line + b"\n") as settings:
        assert refused(settings) == names


def test_a_byte_order_mark_is_no_part_of_a_name() -> None:
    with given_only({}, codecs.BOM_UTF8 + b"APP_NAME=\xff") as settings:
        assert refused(settings) == ["APP_NAME"]


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("value", ["1", "x", '{"name": "x"}', "[1", "/srv"])
def test_a_variable_named_like_a_group_is_not_ours(name: str, value: str) -> None:
    with given_only({name: value, "APP_NAME": "Named"}, f"{name}={value}".encode()) as settings:
        loaded = load_settings(settings)
        assert loaded.app.name == "Named"
        assert unknown_variables(settings) == []


@given(name=st.sampled_from(NAMES), data=st.tuples(st.integers(0, 40), st.sampled_from("AESX_")))
def test_a_name_that_is_nearly_a_setting_is_named_with_it(name: str, data: tuple[int, str]) -> None:
    group, _, field = name.partition("_")
    if group not in GROUPS:
        return
    position, letter = data[0] % (len(field) + 1), data[1]
    wrong = f"{group}_{field[:position]}{letter}{field[position:]}"
    if wrong in NAMES:
        return
    for environment, dotenv in (({wrong.lower(): "1"}, None), ({}, f"{wrong}=1".encode())):
        with given_only(environment, dotenv) as settings:
            load_settings(settings)
            assert unknown_variables(settings) == [f"{wrong}: is not a setting; is it {name}?"]


@pytest.mark.parametrize(
    "name",
    [
        *("HTTP_PROXY", "http_proxy", "SERVER_SOFTWARE", "REDIS_PORT", "HTTP_PORT", "APP_SERVICE_HOST", "PATH"),
        *("REDIS_MASTER_SERVICE_PORT_TCP_REDIS", "DATABASE_PORT_5432_TCP_ADDR", "DATABASE_PORT", "APPLE_X"),
    ],
)
def test_variables_of_others_are_not_named(name: str) -> None:
    with given_only({name: "tcp://10.0.0.1:1"}) as settings:
        assert unknown_variables(settings) == []


@pytest.mark.parametrize(
    "group", sorted({*GROUPS} - {"HTTP", "REDIS", "MAIL", "METRICS"})
)  # MAIL_PORT and METRICS_PORT are settings
def test_a_port_that_a_person_wrote_is_named(group: str) -> None:
    with given_only({f"{group}_PORT": "5432"}) as settings:
        [sentence] = unknown_variables(settings)
        assert sentence.startswith(f"{group}_PORT: is not a setting; is it ")


@pytest.mark.parametrize(("options", "code"), [([], 1), (["--lenient"], 0)])
def test_the_check_fails_for_an_unknown_variable_and_a_start_warns(
    database_url: str, tmp_path: Path, options: list[str], code: int
) -> None:
    (tmp_path / ".env").write_text("DATABASE_POOLSIZE=3\n")
    done = subprocess.run(
        [sys.executable, "-m", "app", "check", *options],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "DATABASE_URL": f"{database_url}?keepalives=1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == code
    sentence = "DATABASE_POOLSIZE: is not a setting; is it DATABASE_POOL_SIZE?"
    assert sentence in done.stdout
    assert done.stderr == (f"{sentence}\n" if code else "")
    assert "DATABASE_URL: `keepalives` is ignored: asyncpg does not support it" in done.stdout


@pytest.mark.parametrize("value", ["info", "INFO", "Warning", "eRRor", "debug", "critical"])
def test_a_level_is_taken_in_any_case(value: str) -> None:
    with given_only({"LOG_LEVEL": value, "LOG_FORMAT": "JSON", "APP_ENV": "Test"}) as settings:
        loaded = load_settings(settings)
        assert (loaded.log_level, loaded.log_format, loaded.app.env) == (value.upper(), "json", "test")


@pytest.mark.parametrize(
    ("origin", "taken"),
    [
        *((each, True) for each in ("*", "null", "https://a.example", "http://localhost:3000", "http://[::1]:8080")),
        *((each, True) for each in ("capacitor://localhost", "https://a.example, https://b.x", "http://10.0.0.1")),
        *((each, False) for each in ("a.example", "https://a.example/", "https://A.example", "https://*.x", "//a")),
        *((each, False) for each in ("https://a.x:443", "http://a.x:80", "https://ü.example", "HTTPS://a.b")),
        *((each, False) for each in ("https://a:b@c.example", "http://[0:0::1]", "http://127.1", "http://a.x:99999")),
        *((each, False) for each in ("https://a.x https://b.x", "https://a.example?x", "https://", "http://a:0")),
    ],
)
def test_an_origin_that_can_never_match_is_refused(origin: str, taken: bool) -> None:
    with given_only({"CORS_ORIGINS": origin}) as settings:
        assert refused(settings) == ([] if taken else ["CORS_ORIGINS"])


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", {"host": "cache"}),
        ("redis://:p%40ss@cache:6380/3", {"host": "cache", "port": 6380, "db": 3, "password": "p@ss"}),
        ("redis://me:hush@[::1]/0?client_name=shop", {"host": "::1", "username": "me", "client_name": "shop"}),
        ("redis://cache?db=7&password=hush", {"host": "cache", "db": 7, "password": "hush"}),
        ("rediss://cache?ssl_cert_reqs=none", {"host": "cache", "ssl_cert_reqs": "none"}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        *((each, None) for each in ("cache:6379", "http://cache", "redis:cache", "redis://cache:0", "redis://cache:x")),
        *((each, None) for each in ("redis://cache:65536", "unix://", "redis://cache/shop", "redis://cache/-1")),
        *(
            (each, None)
            for each in ("redis://:a#b@cache", "redis://cache/0#x", "redis://:a\x01b@cache", "redis://[::1")
        ),
        *((f"redis://cache?{each}", None) for each in ("db=x", "db=", "ssl_ca_certs=/ca", "protocol=2", "retry=1")),
    ],
)
async def test_a_redis_url_is_used_as_it_is_written_or_named(url: str, expected: dict[str, object] | None) -> None:
    with given_only({"REDIS_URL": url}) as settings:
        assert refused(settings) == ([] if expected else ["REDIS_URL"])
        if expected:
            async with open_redis(load_settings(settings).redis) as redis:
                assert redis is not None
                assert redis.connection_pool.connection_kwargs.items() >= expected.items()


def test_each_fault_of_a_value_of_several_types_is_in_its_sentence() -> None:
    with given_only({"CACHE_RESPONSES": "perhaps"}) as settings:
        expected = pytest.raises(ConfigurationError, match=r"^CACHE_RESPONSES: .*'memory' or .*boolean.*$")
        with expected:
            load_settings(settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost", "a-b.example", "_x"])
def test_a_host_is_an_address_or_a_name(host: str) -> None:
    with given_only({"HOST": host}) as settings:
        assert load_settings(settings).host == host
    for wrong in (f"http://{host}", f"[{host}]:80", f"{host}/", "1.2.3", "a b", "*", "a" * 254):
        with given_only({"HOST": wrong}) as settings:
            assert refused(settings) == ["HOST"]


def test_a_secret_file_is_read_or_named_and_those_of_others_are_not_read() -> None:
    with given_only({}) as settings:
        folder = Path(str(settings.model_config["secrets_dir"]))
        (folder / "keystore.p12").write_bytes(b"\xff\xfe\x00")
        (folder / "app").write_text("not ours")
        (folder / "app_name").write_text("Of a file\n")
        (folder / "redis_urll").write_text("redis://cache/0")
        assert load_settings(settings).app.name == "Of a file"
        assert unknown_variables(settings) == ["REDIS_URLL: is not a setting; is it REDIS_URL?"]
        (folder / "app_secret_key").write_bytes(b"\xff" * 40)
        assert refused(settings) == ["APP_SECRET_KEY"]


class ShopSettings(BaseModel):
    currencies: list[str] = Field(default_factory=list)


class ShopKeeper(Settings):
    shop: ShopSettings = Field(default_factory=ShopSettings)


def test_a_password_in_an_origin_is_not_shown() -> None:
    with given_only({"CORS_ORIGINS": "https://me:hunter2@a.example"}) as settings:
        with pytest.raises(ConfigurationError) as error:
            load_settings(settings)
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_an_error_of_a_group_shows_no_secret_either(name: str) -> None:
    """Of code that builds settings by itself, such as a test."""
    group, _, field = name.lower().partition("_")
    kind = group_of(Settings.model_fields[group])
    assert kind is not None
    for secret in ("redis://:hunter2", "postgresql://me:hunter2@h:x/d"):
        for build in (kind, lambda **wrong: Settings(_env_file=None, **{group: wrong})):
            try:
                shown = repr(build(**{field: secret}))
            except ValidationError as error:
                shown = str(error)
            assert "hunter2" not in shown


def test_a_list_of_ones_own_is_json_or_named() -> None:
    with patch.dict(os.environ, {"SHOP_CURRENCIES": '["EUR"]'}):
        assert load_settings(ShopKeeper).shop.currencies == ["EUR"]
    expected = pytest.raises(ConfigurationError, match=r"^SHOP_CURRENCIES: must be JSON, such as \[1, 2\]$")
    with patch.dict(os.environ, {"SHOP_CURRENCIES": "EUR,USD"}), expected:
        load_settings(ShopKeeper)
