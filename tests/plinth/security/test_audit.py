"""The audit trail, on tables of its own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple

import asyncpg
import pytest
from sqlalchemy import text

from plinth.database import Database, open_database
from plinth.errors import InvalidError
from plinth.security import AuditQueries, prune_audit, set_actor
from plinth.security.audit import AuditRow
from plinth.settings import Settings
from plinth.telemetry import request_id
from plinth.testing.environment import ROOT
from plinth.testing.wire import WirePostgres

TABLES = """
    DROP TABLE IF EXISTS audit_child, audit_user, audit_pair, audit_bare, "Odd ""Name", audit_part CASCADE;
    CREATE TABLE audit_user (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
        email text UNIQUE,
        password_hash text,
        seen_at timestamptz,
        length int GENERATED ALWAYS AS (char_length(email)) STORED,
        tags jsonb
    );
    CREATE TABLE audit_child (id int PRIMARY KEY, user_id uuid REFERENCES audit_user ON DELETE CASCADE);
    CREATE TABLE audit_pair (z text, b int, a int, PRIMARY KEY (b, a));
    CREATE TABLE audit_bare (n int);
    CREATE TABLE "Odd ""Name" ("the id" int PRIMARY KEY, "select" text);
    CREATE TABLE audit_part (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE audit_part_1 PARTITION OF audit_part FOR VALUES FROM (1) TO (10);
    SELECT plinth_audit_start('audit_user', '{password_hash}');
    SELECT plinth_audit_start('audit_child');
    SELECT plinth_audit_start('audit_pair');
    SELECT plinth_audit_start('audit_bare');
    SELECT plinth_audit_start('"Odd ""Name"');
    SELECT plinth_audit_start('audit_part');
    TRUNCATE plinth_audit RESTART IDENTITY;
"""
HIDDEN = "[not recorded]"
ID = "2c1e6f0a-5d43-4b1e-9c57-3f8a6d2b7e10"


class Entry(NamedTuple):
    table: str
    row: str | None
    action: str
    before: Any
    after: Any


@pytest.fixture
async def db(settings: Settings, onlooker: asyncpg.Connection) -> AsyncIterator[Database]:
    """One connection, so that one transaction follows another on it."""
    await onlooker.execute(TABLES)
    one = settings.database.model_copy(update={"pool_size": 1})
    async with open_database(one, "tests") as database:
        yield database
    await onlooker.execute(TABLES.partition(";")[0])


async def run(db: Database, *statements: str, actor: str | None = None) -> None:
    async with db.sessions.begin() as session:
        if actor is not None:
            await set_actor(session, actor)
        for statement in statements:
            await session.execute(text(statement))


async def rows(db: Database, **query: Any) -> list[AuditRow]:
    page = await AuditQueries(db.reads).page(**{"sort": "id", "limit": 100, "cursor": None, "total": False, **query})
    return page.rows


async def entries(db: Database) -> list[Entry]:
    return [Entry(row.table_name, row.row_id, row.action, row.before, row.after) for row in await rows(db)]


ADD = f"INSERT INTO audit_user (id, email, password_hash) VALUES ('{ID}', 'ada@example.com', 'secret-1')"
ADDED = {"id": ID, "email": "ada@example.com", "password_hash": HIDDEN, "seen_at": None, "length": 15, "tags": None}


async def test_changes_are_recorded_with_what_changed(db: Database) -> None:
    await run(db, ADD)
    await run(db, "UPDATE audit_user SET email = 'bob@example.com', tags = '[1]'")
    await run(db, "UPDATE audit_user SET password_hash = 'secret-2'")
    await run(db, "DELETE FROM audit_user")
    last = ADDED | {"email": "bob@example.com", "tags": [1]}
    assert await entries(db) == [
        Entry("audit_user", ID, "insert", None, ADDED),
        Entry(
            "audit_user",
            ID,
            "update",
            {"email": "ada@example.com", "tags": None},
            {"email": "bob@example.com", "tags": [1]},
        ),
        Entry("audit_user", ID, "update", {"password_hash": HIDDEN}, {"password_hash": HIDDEN}),
        Entry("audit_user", ID, "delete", last, None),
    ]


async def test_what_is_left_out_is_nowhere(db: Database, onlooker: asyncpg.Connection) -> None:
    await run(db, ADD, "UPDATE audit_user SET password_hash = 'secret-2'", "DELETE FROM audit_user")
    assert await onlooker.fetchval("SELECT count(*) FROM plinth_audit WHERE plinth_audit::text LIKE '%secret-%'") == 0


async def test_an_update_that_changes_nothing_is_not_recorded(db: Database) -> None:
    await run(db, ADD, "UPDATE audit_user SET email = email, password_hash = password_hash")
    assert [entry.action for entry in await entries(db)] == ["insert"]


async def test_a_null_is_a_value(db: Database) -> None:
    await run(db, ADD, "UPDATE audit_user SET email = NULL", "UPDATE audit_user SET tags = 'null'")
    assert [(entry.before, entry.after) for entry in (await entries(db))[1:]] == [
        ({"email": "ada@example.com", "length": 15}, {"email": None, "length": None})
    ], "the text of a jsonb null is that of none"


async def test_the_actor_and_the_request_are_recorded(db: Database) -> None:
    token = request_id.set("request-1")
    try:
        await run(db, ADD, actor="user:7")
    finally:
        request_id.reset(token)
    await run(db, "DELETE FROM audit_user", actor="key:8")
    assert [(row.actor, row.request_id) for row in await rows(db)] == [("user:7", "request-1"), ("key:8", None)]


async def test_the_actor_is_forgotten_with_the_transaction(db: Database) -> None:
    """PgBouncer in transaction mode gives the connection to another client then."""
    token = request_id.set("request-1")
    try:
        await run(db, ADD, actor="user:7")
        with pytest.raises(InvalidError):
            await run(db, "INSERT INTO audit_child VALUES (1, gen_random_uuid())", actor="user:7")
    finally:
        request_id.reset(token)
    await run(db, "DELETE FROM audit_user")
    assert [(row.action, row.actor, row.request_id) for row in await rows(db)] == [
        ("insert", "user:7", "request-1"),
        ("delete", None, None),
    ]


async def test_it_costs_one_round_trip(settings: Settings, db: Database, wire: WirePostgres) -> None:
    one = {"url": wire.through(settings.database.url), "pool_size": 1}
    async with open_database(settings.database.model_copy(update=one), "tests") as database:
        costs = []
        for actor in (None, "user:7", None, "user:7"):
            with wire.counting() as count:
                await run(database, "SELECT 1", actor=actor)
            costs.append(count.round_trips)
        assert costs[3] == costs[2] + 1


async def test_what_is_rolled_back_leaves_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.sessions.begin() as session:
            await session.execute(text(ADD))
            raise ZeroDivisionError
    assert await entries(db) == []


async def test_a_failed_statement_leaves_what_the_transaction_keeps(db: Database) -> None:
    async with db.sessions.begin() as session:
        await set_actor(session, "user:7")
        savepoint = await session.begin_nested()
        await session.execute(text(ADD))
        await savepoint.rollback()
        await session.execute(text("INSERT INTO audit_bare VALUES (1)"))
    assert [(row.table_name, row.actor) for row in await rows(db)] == [("audit_bare", "user:7")]


async def test_bulk_statements_record_each_row(db: Database) -> None:
    await run(db, "INSERT INTO audit_pair SELECT 'z', n, n FROM generate_series(1, 50) AS n")
    await run(db, "UPDATE audit_pair SET z = 'y' WHERE b > 25")
    found = await entries(db)
    assert [entry.action for entry in found] == ["insert"] * 50 + ["update"] * 25
    assert found[-1] == Entry("audit_pair", "[50, 50]", "update", {"z": "z"}, {"z": "y"})


async def test_copy_is_recorded(db: Database, onlooker: asyncpg.Connection) -> None:
    await onlooker.copy_records_to_table("audit_bare", records=[(1,), (2,)])
    assert [entry.after for entry in await entries(db)] == [{"n": 1}, {"n": 2}]


async def test_on_conflict_records_what_it_did(db: Database) -> None:
    insert = "INSERT INTO audit_pair VALUES ('z', 1, 2)"
    await run(db, insert, f"{insert} ON CONFLICT DO NOTHING")
    await run(db, f"{insert} ON CONFLICT (b, a) DO UPDATE SET z = 'y'")
    assert await entries(db) == [
        Entry("audit_pair", "[1, 2]", "insert", None, {"z": "z", "b": 1, "a": 2}),
        Entry("audit_pair", "[1, 2]", "update", {"z": "z"}, {"z": "y"}),
    ]


async def test_truncate_is_recorded_as_one(db: Database) -> None:
    await run(db, "INSERT INTO audit_bare VALUES (1), (2)", "TRUNCATE audit_bare", actor="user:7")
    assert (await entries(db))[-1] == Entry("audit_bare", None, "truncate", None, None)
    assert (await rows(db))[-1].actor == "user:7"


async def test_cascades_are_recorded(db: Database) -> None:
    await run(db, ADD, f"INSERT INTO audit_child VALUES (1, '{ID}')", "DELETE FROM audit_user")
    assert [(entry.table, entry.row) for entry in await entries(db) if entry.action == "delete"] == [
        ("audit_user", ID),
        ("audit_child", "1"),
    ]


async def test_partitions_are_recorded(db: Database) -> None:
    await run(db, "INSERT INTO audit_part VALUES (1, 1)", "TRUNCATE audit_part")
    assert [(entry.table, entry.row, entry.action) for entry in await entries(db)] == [
        ("audit_part_1", "1", "insert"),
        ("audit_part", None, "truncate"),
    ]


async def test_a_changed_primary_key_is_the_one_before(db: Database) -> None:
    await run(db, "INSERT INTO audit_pair VALUES ('z', 1, 2)", "UPDATE audit_pair SET a = 3")
    assert (await entries(db))[1] == Entry("audit_pair", "[1, 2]", "update", {"a": 2}, {"a": 3})


async def test_names_are_quoted(db: Database) -> None:
    await run(db, """INSERT INTO "Odd ""Name" VALUES (1, 'a')""")
    assert await entries(db) == [Entry('Odd "Name', "1", "insert", None, {"the id": 1, "select": "a"})]


async def test_instants_are_in_utc(db: Database) -> None:
    await run(db, "SET LOCAL timezone = 'Asia/Tokyo'", ADD, "UPDATE audit_user SET seen_at = '2026-11-29 09:00+09'")
    assert (await entries(db))[1].after == {"seen_at": "2026-11-29T00:00:00+00:00"}


async def test_a_table_of_another_schema_is_recorded_here(db: Database) -> None:
    statements = "CREATE SCHEMA audit_other; CREATE TABLE audit_other.plinth_audit (LIKE plinth_audit)"
    await run(db, *statements.split(";"))
    try:
        await run(db, "SET LOCAL search_path = audit_other, public", "INSERT INTO audit_bare VALUES (1)")
        assert len(await entries(db)) == 1
    finally:
        await run(db, "DROP SCHEMA audit_other CASCADE")


@pytest.mark.parametrize(
    ("column", "statement"), [("password_hash", ADD.replace("password_hash", "hash")), ("id", ADD)]
)
async def test_a_renamed_column_is_no_leak(
    db: Database, onlooker: asyncpg.Connection, column: str, statement: str
) -> None:
    """Under its new name its values would be recorded. So changes are refused until the migration says the new one."""
    name = "hash" if column == "password_hash" else "key"
    statement = statement.replace("(id,", "(key,") if column == "id" else statement
    await run(db, f"ALTER TABLE audit_user RENAME {column} TO {name}")
    with pytest.raises(asyncpg.RaiseError, match="A column of audit_user"):
        await onlooker.execute(statement)
    assert await entries(db) == []
    await run(db, f"SELECT plinth_audit_start('audit_user', '{{{'hash' if name == 'hash' else 'password_hash'}}}')")
    await run(db, statement)
    assert [entry.row for entry in await entries(db)] == [ID]
    assert "secret" not in str(await entries(db))


async def test_other_columns_are_renamed_as_usual(db: Database) -> None:
    await run(db, ADD, "ALTER TABLE audit_user RENAME email TO address", "UPDATE audit_user SET address = 'a'")
    assert (await entries(db))[-1].after == {"address": "a", "length": 1}


@pytest.mark.parametrize("arguments", ["'audit_user', '{nothing}'", "'audit_user', '{id}'", "'audit_pair', '{a,b}'"])
async def test_what_cannot_be_left_out_is_refused(onlooker: asyncpg.Connection, db: Database, arguments: str) -> None:
    with pytest.raises(asyncpg.RaiseError, match="columns can be left out that exist"):
        await onlooker.execute(f"SELECT plinth_audit_start({arguments})")


async def test_a_table_can_be_left_out_again(db: Database) -> None:
    await run(
        db, ADD, "SELECT plinth_audit_stop('audit_user')", "DELETE FROM audit_user", "TRUNCATE audit_user CASCADE"
    )
    assert [(entry.table, entry.action) for entry in await entries(db)] == [
        ("audit_user", "insert"),
        ("audit_child", "truncate"),
    ]


async def test_transactions_at_once_have_actors_of_their_own(settings: Settings, db: Database) -> None:
    async with open_database(settings.database.model_copy(update={"pool_size": 4}), "tests") as database:
        await asyncio.gather(
            *(run(database, f"INSERT INTO audit_bare VALUES ({n})", actor=f"user:{n}") for n in range(20))
        )
    found = await rows(db)
    assert sorted((row.actor, row.after) for row in found) == sorted((f"user:{n}", {"n": n}) for n in range(20))


async def test_it_is_read_by_table_row_and_actor(db: Database) -> None:
    await run(db, "INSERT INTO audit_bare VALUES (1)", "INSERT INTO audit_pair VALUES ('z', 1, 2)", actor="user:7")
    await run(db, "INSERT INTO audit_pair VALUES ('z', 3, 4)", actor="user:8")
    for query, ids in (
        ({}, [1, 2, 3]),
        ({"table": "audit_pair"}, [2, 3]),
        ({"table": "audit_pair", "row": "[3, 4]"}, [3]),
        ({"actor": "user:7"}, [1, 2]),
        ({"actor": "user:7", "table": "audit_pair"}, [2]),
        ({"actor": "user:9"}, []),
    ):
        assert [row.id for row in await rows(db, **query)] == ids, query
        assert [row.id for row in await rows(db, sort="-id", **query)] == ids[::-1], query


async def test_pages_follow_one_another(db: Database) -> None:
    await run(db, "INSERT INTO audit_bare SELECT generate_series(1, 7)")
    found, cursor = [], None
    while True:
        page = await AuditQueries(db.reads).page(sort="-id", limit=3, cursor=cursor, total=True)
        assert page.total == 7
        found += [row.id for row in page.rows]
        if (cursor := page.next_cursor) is None:
            break
    assert found == [7, 6, 5, 4, 3, 2, 1]


async def test_it_is_read_in_a_transaction_too(db: Database) -> None:
    async with db.sessions.begin() as session:
        await session.execute(text(ADD))
        page = await AuditQueries(session).page(sort="id", limit=5, cursor=None, total=False)
        assert [row.after for row in page.rows] == [ADDED]


async def test_what_is_old_is_pruned_in_batches(db: Database, onlooker: asyncpg.Connection) -> None:
    await run(db, "INSERT INTO audit_bare SELECT generate_series(1, 9)")
    await onlooker.execute("UPDATE plinth_audit SET at = now() - interval '366 days' WHERE id <= 5")
    await onlooker.execute("UPDATE plinth_audit SET at = now() - interval '364 days' WHERE id > 5")
    counts = []
    for _ in range(4):
        async with db.sessions.begin() as session:
            counts.append(await prune_audit(session, most=2))
    assert counts == [2, 2, 1, 0]
    assert [row.id for row in await rows(db)] == [6, 7, 8, 9]
    async with db.sessions.begin() as session:
        assert await prune_audit(session, timedelta(days=1)) == 4


def test_it_is_little_sql() -> None:
    (file,) = (ROOT / "migrations/versions").glob("*create_audit.py")
    blocks = file.read_text().split('"""')[3::2]
    assert sum(1 for block in blocks for line in block.splitlines() if line.strip()) <= 80
