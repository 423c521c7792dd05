"""`DATABASE_URL` as platforms write it: every parameter of libpq is decided, and no message shows a secret."""

import re
import ssl
import string
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text

from plinth.database import DatabaseSettings, open_database
from plinth.database.connections import driver_arguments
from plinth.database.parameters import KNOWN
from plinth.database.urls import Address, parse
from plinth.settings import Settings

HOST = "postgresql://me:hunter2@db.example.com:5433/shop"
FILE = str(Path(__file__))
TLS, REFUSED, NOTHING = "tls", "refused", "nothing"

# Each keyword of PostgreSQL 18's libpq: a value that it may have, and what becomes of it.
# https://www.postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS
LIBPQ: list[tuple[str, str, Any]] = [
    ("host", "other.example.com", {"host": ["other.example.com"]}),
    ("hostaddr", "10.0.0.1", REFUSED),
    ("port", "6000", {"port": [6000]}),
    ("dbname", "other", {"database": "other"}),
    ("user", "you", {"user": "you"}),
    ("password", "secret", {"password": "secret"}),
    ("passfile", "/home/me/.pgpass", {"passfile": "/home/me/.pgpass"}),
    ("require_auth", "scram-sha-256", REFUSED),
    ("channel_binding", "require", "ignored"),
    ("channel_binding", "prefer", NOTHING),
    ("channel_binding", "disable", NOTHING),
    ("channel_binding", "always", REFUSED),
    ("connect_timeout", "7", {"timeout": 7.0}),
    ("connect_timeout", "0", NOTHING),
    ("client_encoding", "UTF8", NOTHING),
    ("client_encoding", "latin1", REFUSED),
    ("options", "-c search_path=mine", {"options": "-c search_path=mine"}),
    ("application_name", "Theirs", {"application_name": "Theirs"}),
    ("fallback_application_name", "Theirs", "ignored"),
    ("keepalives", "1", "ignored"),
    ("keepalives_idle", "30", "ignored"),
    ("keepalives_interval", "30", "ignored"),
    ("keepalives_count", "3", "ignored"),
    ("tcp_user_timeout", "1000", "ignored"),
    ("replication", "false", NOTHING),
    ("replication", "database", REFUSED),
    ("gssencmode", "prefer", NOTHING),
    ("gssencmode", "require", REFUSED),
    *(("sslmode", mode, TLS) for mode in ("disable", "allow", "prefer", "require")),
    ("sslmode", "verify-full", ssl.SSLContext),
    ("sslmode", "strict", REFUSED),
    ("requiressl", "1", TLS),
    ("sslnegotiation", "postgres", TLS),
    ("sslnegotiation", "direct", REFUSED),  # without an sslmode
    ("sslcompression", "0", NOTHING),
    ("sslcert", FILE, TLS),
    ("sslcert", "/no/such/file", REFUSED),
    ("sslkey", FILE, TLS),
    ("sslkeylogfile", "/tmp/keys", "ignored"),
    ("sslpassword", "secret", TLS),
    ("sslcertmode", "allow", NOTHING),
    ("sslcertmode", "require", REFUSED),
    ("sslrootcert", FILE, TLS),
    ("sslrootcert", "/no/such/file", REFUSED),
    ("sslrootcert", "system", ssl.SSLContext),
    ("sslcrl", FILE, TLS),
    ("sslcrldir", "/tmp", REFUSED),
    ("sslsni", "1", NOTHING),
    ("sslsni", "0", REFUSED),
    ("requirepeer", "postgres", REFUSED),
    ("ssl_min_protocol_version", "TLSv1.3", TLS),
    ("ssl_max_protocol_version", "TLSv1.3", TLS),
    ("min_protocol_version", "3.0", NOTHING),
    ("min_protocol_version", "3.2", REFUSED),
    ("max_protocol_version", "latest", NOTHING),
    ("krbsrvname", "postgres", {"krbsrvname": "postgres"}),
    ("gsslib", "gssapi", {"gsslib": "gssapi"}),
    ("gssdelegation", "0", NOTHING),
    ("gssdelegation", "1", REFUSED),
    ("scram_client_key", "abc", REFUSED),
    ("scram_server_key", "abc", REFUSED),
    ("service", "mine", REFUSED),
    ("servicefile", "/tmp/services", REFUSED),
    *(
        ("target_session_attrs", each, {"target_session_attrs": each})
        for each in ("any", "read-write", "read-only", "primary", "standby", "prefer-standby")
    ),
    ("target_session_attrs", "fastest", REFUSED),
    ("load_balance_hosts", "disable", NOTHING),
    ("load_balance_hosts", "random", NOTHING),
    ("load_balance_hosts", "always", REFUSED),
    *((f"oauth_{name}", "x", REFUSED) for name in ("issuer", "client_id", "client_secret", "scope")),
    # Not of libpq, and yet in URLs that platforms show.
    ("ssl", "true", TLS),
    ("ssl", "require", TLS),
    ("database", "other", {"database": "other"}),
    ("pgbouncer", "true", "pooled"),
    ("pgbouncer", "false", NOTHING),
    ("statement_cache_size", "0", "pooled"),
    ("prepared_statement_cache_size", "0", "pooled"),
    *((name, "5", "ignored") for name in ("connection_limit", "pool_timeout", "supa", "workaround", "uselibpqcompat")),
    ("sslmod", "require", REFUSED),
    ("schema", "public", REFUSED),
]


def arguments(url: str, **changes: Any) -> dict[str, Any]:
    settings = DatabaseSettings(url=SecretStr(url), **changes)
    found = driver_arguments(settings, "Ours")
    return {**found.pop("server_settings"), **found}


@pytest.mark.parametrize(("name", "value", "outcome"), LIBPQ, ids=lambda each: str(each)[:40])
def test_every_parameter_is_decided(name: str, value: str, outcome: Any) -> None:
    url = f"{HOST}?{name}={quote(value)}"
    before = arguments(HOST)
    if outcome == REFUSED:
        with pytest.raises(ValueError, match=f"`{name}") as refused:
            parse(url)
        assert "hunter2" not in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
        return
    after = arguments(url)
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    assert (parse(url).ignored.keys() == {name}) == (outcome == "ignored")
    if outcome in (NOTHING, "ignored"):
        assert changed == {}
    elif outcome == "pooled":
        assert changed == {"statement_cache_size": 0}
    elif outcome is ssl.SSLContext:
        assert changed.keys() == {"ssl"}
        assert (changed["ssl"].check_hostname, changed["ssl"].verify_mode) == (True, ssl.CERT_REQUIRED)
    elif outcome == TLS:
        assert changed.keys() == {"dsn"}
    else:
        assert changed == outcome


def test_the_list_holds_every_parameter() -> None:
    assert {name for name, _, _ in LIBPQ} - {"sslmod", "schema"} == KNOWN


PLATFORMS = {
    "neon": "postgresql://me:pw@ep-a-1.eu.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
    "neon with prisma": "postgres://me:pw@ep-a-1-pooler.neon.tech/neondb?sslmode=require&pgbouncer=true&connect_timeout=15",
    "supabase": "postgresql://postgres.ref:pw@aws-0-eu.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
    "vercel": "postgres://default:pw@db.vercel-storage.com:5432/verceldb?sslmode=require&supa=base-pooler.x",
    "heroku": "postgres://u1:p1@ec2-1-2-3-4.compute-1.amazonaws.com:5432/d1",
    "render": "postgresql://me:pw@dpg-x-a.frankfurt-postgres.render.com/shop",
    "rds": "postgresql://me:pw@x.eu-west-1.rds.amazonaws.com:5432/shop?sslmode=verify-full&sslrootcert=" + quote(FILE),
    "azure": "postgresql://me%40server:pw@server.postgres.database.azure.com:5432/postgres?sslmode=require",
    "fly": "postgres://shop:pw@shop-db.flycast:5432/shop?sslmode=disable",
    "digitalocean": "postgresql://doadmin:pw@db-1.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
    "crunchy": "postgres://application:pw@p.abc.db.postgresbridge.com:5432/postgres",
    "aiven": "postgres://avnadmin:pw@pg-1.aivencloud.com:12345/defaultdb?sslmode=require",
    "cloud sql": "postgresql://me:pw@/shop?host=/cloudsql/project:region:instance",
    "cockroach": "postgresql://me:pw@x.cockroachlabs.cloud:26257/defaultdb?sslmode=verify-full&options=--cluster%3Dx",
    "timescale": "postgres://tsdbadmin:pw@x.tsdb.cloud.timescale.com:31234/tsdb?sslmode=require",
    "patroni": "postgresql://me:pw@a:5432,b:5433,[::1]/shop?target_session_attrs=read-write&sslmode=require",
    "railway": "postgresql://postgres:pw@postgres.railway.internal:5432/railway",
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_urls_of_platforms_are_taken(platform: str) -> None:
    found = arguments(PLATFORMS[platform])
    assert len(found["host"]) == len(found["port"])
    assert (found["password"][0], bool(found["user"]), bool(found["database"])) == ("p", True, True)


def test_several_hosts_and_their_ports() -> None:
    address = parse(PLATFORMS["patroni"])
    assert (address.hosts, address.ports) == (["a", "b", "::1"], [5432, 5433, 5432])
    assert parse("postgresql://h/d?host=a,b&port=1").ports == [1, 1]
    assert parse("postgresql://h:1/d?host=a,b").ports == [1, 1]  # the parameter replaces the host and not the port
    assert parse("postgresql:///d?host=a,b").ports == [5432, 5432]
    orders = [parse("postgresql://a:1,b:2/d?load_balance_hosts=random") for _ in range(100)]
    assert {(*each.hosts, *each.ports) for each in orders} == {("a", "b", 1, 2), ("b", "a", 2, 1)}
    assert parse("postgresql://a,b/d").connect_arguments()["host"] == ["a", "b"]
    for wrong in (
        "postgresql://a:1,b:2/d?host=c",
        "postgresql://a,b/d?port=1,2,3",
        "postgresql://h:0/d",
        "postgresql://h:65536/d",
        "postgresql://h:x/d",
    ):
        with pytest.raises(ValueError, match="port"):
            parse(wrong)


PASSWORDS = st.text(st.characters(exclude_categories=["C"]), min_size=8, max_size=20)


@given(password=PASSWORDS, user=PASSWORDS, name=PASSWORDS)
def test_any_password_passes_when_it_is_encoded(password: str, user: str, name: str) -> None:
    url = (
        f"postgresql://{quote(user, safe='')}:{quote(password, safe='')}@db:5432/{quote(name, safe='')}?sslmode=require"
    )
    found = parse(url)
    assert found.arguments == {"user": user, "password": password, "database": name}
    assert parse(f"postgresql://db/d?password={quote(password, safe='')}").arguments["password"] == password


def test_what_an_address_prints_shows_no_password() -> None:
    assert "hunter2" not in repr(parse(f"{HOST}?sslpassword=hunter2"))


@given(
    password=st.text(string.ascii_letters + string.digits + string.punctuation, min_size=8, max_size=20),
    rest=st.sampled_from(["db:5432/shop", "db/shop?sslmode=require", "db", "[::1]:5/x", "a,b:1/x?port=7"]),
)
@example(password="abcdef/ghij", rest="db/shop")
@example(password="1234?abcdef=ghi", rest="db/shop?x=y")
@example(password="1234567#", rest="db/shop")
@example(password="a@b:c/d?e=f&", rest="db/shop")
@example(password="5432/abcdefgh", rest="db/shop")
def test_no_message_shows_a_password(password: str, rest: str) -> None:
    """Even one that is not encoded, whose parts may be taken for a host, a port, a name or a parameter."""
    try:
        found = parse(f"postgresql://me:{password}@{rest}")
    except ValueError as error:
        message = str(error)
        for part in re.findall(r"[A-Za-z0-9]{4,}", password):
            assert part not in message or part.lower() in "must look like postgresql://user:password@host:5432/name"
    else:
        assert isinstance(found, Address)
        assert (found.hosts, found.ports) in [(["db"], [5432]), (["::1"], [5]), (["a", "b"], [7, 7])]


def test_a_setting_precedes_what_the_url_says_of_a_pooler() -> None:
    assert arguments(f"{HOST}?pgbouncer=true", prepared_statements=True)["statement_cache_size"] > 0


def test_what_the_url_says_of_tls_beside_the_systems_certificates() -> None:
    assert "sslnegotiation=direct" in arguments(f"{HOST}?sslrootcert=system&sslnegotiation=direct")["dsn"]
    assert arguments(f"{HOST}?sslrootcert=system&sslmode=verify-full").keys() >= {"ssl"}
    for lost in ("sslcrl=" + FILE, "ssl_min_protocol_version=TLSv1.3", "ssl_max_protocol_version=TLSv1.3"):
        with pytest.raises(ValueError, match=f"`{lost.partition('=')[0]}` needs a file in sslrootcert"):
            parse(f"{HOST}?sslrootcert=system&{lost}")
    with pytest.raises(ValueError, match="`sslcert`"):
        parse(f"{HOST}?sslrootcert=system&sslcert={quote(FILE)}")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "must look like"),
        ("nonsense", "must look like"),
        ("mysql://db/shop", r"must start with postgresql://"),
        ("postgresql://me:a%00b@db/shop", "control character"),
        ("postgresql://me:a%ffb@db/shop", "UTF-8"),
        ("postgresql://[::1/shop", "port"),
        ("postgresql://db/shop?sslmode", "name=value"),
        ("postgresql://db/shop?sslmode=verify-ca", "sslrootcert"),
        ("postgresql://db/shop?sslmode=require&sslrootcert=system", "verify-full"),
        ("postgresql://db/shop?connect_timeout=soon", "seconds"),
    ],
)
def test_what_is_no_url_is_refused_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, sentence: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # without root certificates
    with pytest.raises(ValueError, match=sentence):
        parse(url)


async def test_parameters_reach_the_server(settings: Settings) -> None:
    options = quote("-c search_path=mine -c statement_timeout=1234 --work_mem=5MB")
    url = f"{settings.database.url.get_secret_value()}?application_name=Theirs&options={options}&pgbouncer=true"
    sql = text("SELECT string_agg(current_setting(n), ' ') FROM unnest(string_to_array(:names, ',')) AS n")
    names = "application_name,search_path,statement_timeout,work_mem,jit"
    async with (
        open_database(settings.database.model_copy(update={"url": SecretStr(url)}), "Ours") as database,
        database.sessions.begin() as session,
    ):
        assert await session.scalar(sql, {"names": names}) == "Theirs mine 1234ms 5MB off"


@pytest.mark.parametrize(
    ("url", "mode", "plaintext"),
    [
        ("postgresql://db/shop", "", True),
        ("postgresql://db/shop", "require", False),
        ("postgresql://db/shop?sslmode=prefer", "require", True),
        ("postgresql://db/shop?sslrootcert=system", "", False),
        ("postgresql:///shop?host=/run/postgresql", "", False),
        ("postgresql://%2Frun,db/shop", "", True),
    ],
)
def test_plaintext_is_what_may_be_read_on_a_network(
    monkeypatch: pytest.MonkeyPatch, url: str, mode: str, plaintext: bool
) -> None:
    monkeypatch.setenv("PGSSLMODE", mode)
    assert parse(url).is_plaintext == plaintext
