"""A POST with an Idempotency-Key is carried out once, however often it is sent, and answered the same each time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from httpx import ASGITransport, AsyncClient, Response

from app.settings import Settings
from plinth.security import idempotency, prune_idempotency_keys
from plinth.testing.client import Service
from plinth.testing.wire import WirePostgres
from tests.faults.redis_server import wait_until
from tests.plinth.security.idempotent_app import Gate, create_table, idempotent_service

CHANGING = {"x-request-id", "x-process-time", "x-queries", "ratelimit", "idempotency-replayed"}
PREFIXES = ["/things", "/stock"]


def new_key() -> dict[str, str]:
    return {"Idempotency-Key": f'"{uuid4()}"'}


def whole(answer: Response) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [(name, value) for name, value in answer.headers.multi_items() if name not in CHANGING]
    return answer.status_code, sorted(headers), answer.content


def replayed(answer: Response) -> bool:
    return "Idempotency-Replayed" in answer.headers


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def things(settings: Settings, onlooker: asyncpg.Connection, gate: Gate) -> AsyncIterator[Service]:
    await create_table(onlooker)
    async with idempotent_service(settings, gate) as service:
        yield service


@pytest.fixture
async def sender(things: Service) -> AsyncIterator[AsyncClient]:
    async with things.client() as client:
        yield client


async def count(onlooker: asyncpg.Connection) -> int:
    return int(await onlooker.fetchval("SELECT count(*) FROM idempotent_things"))


async def stored_keys(onlooker: asyncpg.Connection) -> int:
    return int(await onlooker.fetchval("SELECT count(*) FROM plinth_idempotency_keys"))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ["", "/empty", "/raw/bytes"])
async def test_a_second_request_is_answered_as_the_first_and_changes_nothing(
    prefix: str, path: str, sender: AsyncClient, onlooker: asyncpg.Connection, solved_by_fastapi: list[str]
) -> None:
    key = new_key()
    first, *others = [await sender.post(prefix + path, json={"name": "a"}, headers=key) for _ in range(3)]
    assert first.is_success
    assert not replayed(first)
    assert [replayed(each) for each in others] == [True, True]
    assert {whole(first)[0::2], *(whole(each)[0::2] for each in others)} == {whole(first)[0::2]}
    assert [whole(each)[1] for each in others] == [whole(first)[1]] * 2
    assert await count(onlooker) == 1
    assert bool(solved_by_fastapi) == (prefix == "/stock")


async def test_the_key_changes_nothing_in_the_answer(sender: AsyncClient) -> None:
    """But for what differs between any two things: the id, the time, and the ETag made of them."""
    plain = await sender.post("/things", json={"name": "a"})
    keyed = await sender.post("/things", json={"name": "a"}, headers=new_key())
    different = {"location", "etag", "last-modified"} | CHANGING

    def same(answer: Response) -> tuple[int, list[tuple[str, str]], set[str]]:
        headers = [(name, value) for name, value in answer.headers.multi_items() if name not in different]
        return answer.status_code, sorted(headers), {*answer.headers}

    assert same(plain) == same(keyed)
    assert keyed.headers["ETag"].startswith('"3.')
    assert keyed.headers.get_list("X-Twice") == plain.headers.get_list("X-Twice")
    assert {**plain.json(), "id": 0, "at": 0} == {**keyed.json(), "id": 0, "at": 0}


async def test_the_service_s_own_resources_take_a_key(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    key = new_key()
    category = [await client.post("/api/categories", json={"name": "Lamps"}, headers=key) for _ in range(3)]
    product = {"sku": "LAMP-1", "name": "Lamp", "price": "9.00", "stock": 1, "category_id": category[0].json()["id"]}
    products = [await client.post("/api/products", json=product, headers=key) for _ in range(3)]
    for first, *others in (category, products):
        assert first.status_code == 201
        assert first.headers["ETag"].startswith('"1.')
        assert [whole(each) for each in others] == [whole(first)] * 2
        assert all(map(replayed, others))
    assert await onlooker.fetchval("SELECT count(*) FROM categories") == 1
    assert await onlooker.fetchval("SELECT count(*) FROM products") == 1


async def test_the_same_key_with_another_request_is_refused(sender: AsyncClient, onlooker: asyncpg.Connection) -> None:
    key = new_key()
    assert (await sender.post("/things", json={"name": "a"}, headers=key)).status_code == 201
    for path, name in (("/things", "b"), ("/things?really=yes", "a")):
        answer = await sender.post(path, json={"name": name}, headers=key)
        assert answer.status_code == 422
        assert "Use a new key" in answer.json()["detail"]
    assert (await sender.post("/things/raw/x", json={"name": "a"}, headers=key)).status_code == 202, "another route"
    assert (await sender.post("/things/raw/y", json={"name": "a"}, headers=key)).status_code == 422
    assert await count(onlooker) == 2


async def test_a_key_of_another_principal_is_another_key(sender: AsyncClient, onlooker: asyncpg.Connection) -> None:
    key = new_key()
    for name in ("ada", "grace"):
        answers = [
            await sender.post("/things/principal", json={"name": "a"}, headers={**key, "name": name}) for _ in range(2)
        ]
        assert [replayed(each) for each in answers] == [False, True]
        assert answers[0].content == answers[1].content
    assert await count(onlooker) == 2


@pytest.mark.parametrize(
    "sent", ["", '""', '"', "a b", '"a', 'a"b', '"a\x7f"', '"é"', "x" * 256, f'"{"x" * 256}"', '"\\n"']
)
async def test_a_malformed_key_is_refused(sent: str, sender: AsyncClient, onlooker: asyncpg.Connection) -> None:
    headers = {b"Idempotency-Key": sent.encode("latin-1")}
    answer = await sender.post("/things", json={"name": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["title"]) == (400, "Bad request")
    assert answer.json()["detail"].startswith("Idempotency-Key must be 1 to 255 characters")
    assert await count(onlooker) == 0


async def test_two_keys_are_refused(sender: AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert (await sender.post("/things", json={"name": "a"}, headers=headers)).status_code == 400


async def test_the_longest_key_and_both_spellings_are_accepted(sender: AsyncClient) -> None:
    for quoted, bare in ((f'"{"x" * 255}"', "x" * 255), (f'"{(id := uuid4())}"', str(id))):
        answers = [
            await sender.post("/things", json={"name": "a"}, headers={"Idempotency-Key": each})
            for each in (quoted, bare)
        ]
        assert [each.status_code for each in answers] == [201, 201]
        assert replayed(answers[1])


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("pool_size", [2, 8])
async def test_fifty_at_once_make_one_thing_and_are_answered_alike(
    prefix: str, pool_size: int, settings: Settings, onlooker: asyncpg.Connection, gate: Gate
) -> None:
    await create_table(onlooker)
    database = settings.database.model_copy(update={"pool_size": pool_size, "pool_timeout_seconds": 20})
    key = new_key()
    changed = settings.model_copy(update={"database": database})
    async with idempotent_service(changed, gate) as service, service.client() as client, asyncio.timeout(30):
        answers = await asyncio.gather(*(client.post(prefix, json={"name": "a"}, headers=key) for _ in range(50)))
    assert [whole(each) for each in answers] == [whole(answers[0])] * 50
    assert sum(not replayed(each) for each in answers) == 1
    assert answers[0].status_code == 201
    assert (await count(onlooker), gate.runs) == (1, 1)


async def blocked(onlooker: asyncpg.Connection) -> bool:
    """Whether a request waits for another one that has inserted the same key."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%plinth_idempotency%'"
    return bool(await onlooker.fetchval(f"{sql} AND datname = current_database() AND pid <> pg_backend_pid()"))


async def test_one_waits_for_the_other_and_has_its_answer(
    sender: AsyncClient, onlooker: asyncpg.Connection, gate: Gate
) -> None:
    key = new_key()
    requests = [asyncio.create_task(sender.post("/things/held", json={"name": "a"}, headers=key)) for _ in range(2)]
    await wait_until(lambda: blocked(onlooker))
    assert await count(onlooker) == 0, "nothing is committed yet"
    gate.open.set()
    answers = await asyncio.gather(*requests)
    assert sorted(map(replayed, answers)) == [False, True]
    assert whole(answers[0]) == whole(answers[1])
    assert (await count(onlooker), gate.runs) == (1, 1)


async def test_the_first_one_fails_and_another_one_makes_it(
    sender: AsyncClient, onlooker: asyncpg.Connection, gate: Gate
) -> None:
    key = new_key()
    requests = [asyncio.create_task(sender.post("/things/held", json={"name": "a"}, headers=key)) for _ in range(5)]
    await wait_until(lambda: blocked(onlooker))
    gate.failures = 1
    gate.open.set()
    answers = await asyncio.gather(*requests)
    assert sorted(each.status_code for each in answers) == [201, 201, 201, 201, 409]
    assert sum(replayed(each) for each in answers) == 3
    assert len({each.content for each in answers if each.is_success}) == 1
    assert (await count(onlooker), gate.runs) == (1, 2)


async def test_the_first_one_is_killed_and_another_one_makes_it(
    sender: AsyncClient, onlooker: asyncpg.Connection, gate: Gate
) -> None:
    key = new_key()
    first = asyncio.create_task(sender.post("/things/held", json={"name": "a"}, headers=key))
    await wait_until(lambda: gate.waiting == 1)
    second = asyncio.create_task(sender.post("/things/held", json={"name": "a"}, headers=key))
    await wait_until(lambda: blocked(onlooker))
    await onlooker.execute("""
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE state = 'idle in transaction' AND datname = current_database() AND query LIKE '%idempotent_things%'
    """)
    await wait_until(lambda: gate.waiting == 2)
    gate.open.set()
    answers = [await first, await second]
    assert [each.status_code for each in answers] == [503, 201]
    assert (await count(onlooker), gate.runs) == (1, 2)
    again = await sender.post("/things/held", json={"name": "a"}, headers=key)
    assert whole(again) == whole(answers[1])


async def test_one_that_waits_for_too_long_is_answered_409(
    sender: AsyncClient, onlooker: asyncpg.Connection, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 0.1)
    key = new_key()
    first = asyncio.create_task(sender.post("/things/held", json={"name": "a"}, headers=key))
    await wait_until(lambda: gate.waiting == 1)
    answer = await sender.post("/things/held", json={"name": "a"}, headers=key)
    assert answer.status_code == 409
    assert "still being processed" in answer.json()["detail"]
    gate.open.set()
    assert (await first).status_code == 201
    assert replayed(await sender.post("/things/held", json={"name": "a"}, headers=key))
    assert await count(onlooker) == 1


async def test_the_bound_holds_for_the_key_only(sender: AsyncClient) -> None:
    plain = await sender.post("/things/timeout")
    assert (await sender.post("/things/timeout", headers=new_key())).json() == plain.json()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/things", {"name": None}, 422),
        ("/things/raw/refusal", {"name": "a"}, 400),
        ("/things/raw/stream", {"name": "a"}, 500),
    ],
)
async def test_a_failed_request_keeps_no_key(
    path: str, body: dict[str, Any], status: int, sender: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    before, key = await stored_keys(onlooker), new_key()
    for _ in range(2):
        answer = await sender.post(path, json=body, headers=key)
        assert (answer.status_code, replayed(answer)) == (status, False)
    assert await stored_keys(onlooker) == before


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_form_is_made_once_too(prefix: str, sender: AsyncClient, onlooker: asyncpg.Connection) -> None:
    key = new_key()
    multipart: Any = {"files": {"name": (None, "a")}}
    for form in ({"data": {"name": "a"}}, multipart):
        first, again = [await sender.post(f"{prefix}/form", **form, headers=key) for _ in range(2)]
        assert (first.status_code, first.json(), whole(again)) == (201, "a", whole(first))
        assert replayed(again)
    assert await count(onlooker) == 1
    for form in ({"data": {"name": "b"}}, {"data": {"name": "a", "more": "b"}}, {"files": {"name": ("a", b"a")}}):
        other = await sender.post(f"{prefix}/form", **form, headers=key)
        assert other.status_code == 422, form
        assert "was sent with another request" in other.text or "files" in form
    assert await count(onlooker) == 1


async def test_of_a_file_the_whole_content_is_compared(sender: AsyncClient, onlooker: asyncpg.Connection) -> None:
    key, content = new_key(), b"a" * 70_000
    for _ in range(2):
        answer = await sender.post("/things/file", files={"file": ("a.txt", content)}, headers=key)
        assert (answer.status_code, answer.json()) == (201, len(content)), "the endpoint reads it from the start"
    for file in (("a.txt", content[:-1] + b"b"), ("b.txt", content)):
        answer = await sender.post("/things/file", files={"file": file}, headers=key)
        assert answer.status_code == 422
    assert await count(onlooker) == 1


@pytest.mark.parametrize("headers", [{}, new_key()])
async def test_a_route_that_is_no_fast_route_is_refused(
    headers: dict[str, str], sender: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await sender.post("/plain", headers=headers)).status_code == 500
    assert "The route /plain must be a FastRoute: make its router with route_class=FastRoute." in caplog.text


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_a_key_takes_two_round_trips(
    prefix: str, settings: Settings, wire: WirePostgres, onlooker: asyncpg.Connection, gate: Gate
) -> None:
    await create_table(onlooker)
    database = settings.database.model_copy(update={"url": wire.through(settings.database.url), "pool_size": 1})
    changed = settings.model_copy(update={"database": database})
    async with idempotent_service(changed, gate) as service, service.client() as client:

        async def trips(headers: dict[str, str]) -> int:
            with wire.counting() as counted:
                assert (await client.post(prefix, json={"name": "a"}, headers=headers)).status_code == 201
            return counted.round_trips

        key = new_key()
        for headers in ({}, key, key):
            await trips(headers)  # prepares the statements
        assert await trips({}) == 3  # BEGIN, INSERT, COMMIT
        assert await trips(again := new_key()) == 3 + 2
        assert await trips(again) == 4  # BEGIN, the key, its answer, COMMIT


async def test_old_keys_are_deleted_batch_by_batch(
    things: Service, sender: AsyncClient, onlooker: asyncpg.Connection
) -> None:
    await onlooker.execute("DELETE FROM plinth_idempotency_keys")
    keys = [new_key() for _ in range(4)]
    for key in keys:
        await sender.post("/things", json={"name": "a"}, headers=key)
    await onlooker.execute("""
        UPDATE plinth_idempotency_keys SET created_at = now() - interval '25 hours'
        WHERE key IN (SELECT key FROM plinth_idempotency_keys LIMIT 3)
    """)

    async def prune() -> int:
        async with things.state["database"].sessions.begin() as session:
            return await prune_idempotency_keys(session, timedelta(hours=24), most=2)

    assert [await prune(), await prune(), await prune()] == [2, 1, 0]
    answers = [await sender.post("/things", json={"name": "a"}, headers=key) for key in keys]
    assert sum(map(replayed, answers)) == 1


async def test_the_header_is_documented(sender: AsyncClient) -> None:
    document = (await sender.get("/openapi.json")).json()
    for path in ("/api/products", "/api/categories"):
        operation = document["paths"][path]["post"]
        [header] = [each for each in operation["parameters"] if each["name"] == "Idempotency-Key"]
        assert (header["in"], header["required"]) == ("header", False)
        assert {"400", "409", "422", "429"} <= operation["responses"].keys()


async def test_keys_and_bodies_are_not_stored_as_they_are(sender: AsyncClient, onlooker: asyncpg.Connection) -> None:
    await sender.post("/things", json={"name": "a"}, headers={"Idempotency-Key": "a-secret-key"})
    rows = await onlooker.fetch("SELECT key, fingerprint FROM plinth_idempotency_keys")
    assert all(len(part) == 32 for row in rows for part in row.values())


def at(service: Service, address: str) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(service, client=(address, 1)), base_url="http://test")


async def test_without_accounts_a_retry_may_come_from_another_address(things: Service) -> None:
    key = new_key()
    for address, again in (("192.0.2.1", False), ("198.51.100.1", True)):
        async with at(things, address) as client:
            assert replayed(await client.post("/things", json={"name": "a"}, headers=key)) is again
