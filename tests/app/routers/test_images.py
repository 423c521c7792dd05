"""Images of products: stored in one piece or not at all, and shown as HTTP wants files shown."""

import asyncio
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from anyio import to_thread
from httpx import AsyncClient, Response

from app.main import create_app
from app.routers.images import MOST_BYTES
from app.settings import Settings
from plinth.testing.client import Service, serve, served
from tests.app.factories import create_category, create_product
from tests.app.test_cli import run

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400
JPEG = b"\xff\xd8\xff\xe0" + bytes(2000)
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8 " + bytes(50)
URL = "/api/products/1/image"


@pytest.fixture(autouse=True)
async def product(client: AsyncClient, settings: Settings) -> None:
    for path in stored(settings):
        path.unlink()
    await create_category(client)
    await create_product(client)


def stored(settings: Settings) -> list[Path]:
    return [path for path in settings.storage.folder.rglob("*") if path.is_file()]


async def put(client: AsyncClient, content: Any = PNG, content_type: str = "", **headers: str) -> Response:
    if content_type:
        headers["Content-Type"] = content_type
    return await client.put(
        URL, content=content, headers={name.replace("_", "-"): each for name, each in headers.items()}
    )


def assert_problem(answer: Response, status: int, detail: str) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.text
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize(
    ("content", "kind"),
    [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp"), (b"GIF87a" + bytes(9), "image/gif")],
)
async def test_what_was_put_is_shown(client: AsyncClient, content: bytes, kind: str) -> None:
    answer = await put(client, content, kind)
    body = answer.json()
    assert answer.status_code == 201
    assert {name: body[name] for name in ("product_id", "content_type", "size")} == {
        "product_id": 1,
        "content_type": kind,
        "size": len(content),
    }
    shown = await client.get(URL, headers={"Accept-Encoding": "gzip"})
    assert shown.content == content
    expected = {
        "Content-Type": kind,
        "Content-Length": str(len(content)),
        "Accept-Ranges": "bytes",
        "Content-Disposition": "inline",
        "Cache-Control": "public, no-cache",
        "X-Content-Type-Options": "nosniff",
        "ETag": answer.headers["ETag"],
    }
    assert {name: shown.headers.get(name) for name in expected} == expected
    assert "Content-Encoding" not in shown.headers
    head = await client.head(URL, headers={"Range": "bytes=0-9"})  # a range is for GET
    assert (head.status_code, head.content, head.headers["Content-Length"]) == (200, b"", str(len(content)))


async def test_another_one_takes_its_place(client: AsyncClient, settings: Settings) -> None:
    first = await put(client)
    second = await put(client, JPEG)
    assert (second.status_code, second.json()["content_type"]) == (200, "image/jpeg")
    assert second.json()["version"] > first.json()["version"]
    assert (await client.get(URL)).content == JPEG
    assert [path.read_bytes() for path in stored(settings)] == [JPEG]
    assert (await client.delete(URL)).status_code == 204
    assert stored(settings) == []
    assert_problem(await client.get(URL), 404, "Image of product 1 does not exist.")
    assert_problem(await client.delete(URL), 404, "Image of product 1 does not exist.")


@pytest.mark.parametrize("declared", ["", "application/octet-stream", "IMAGE/PNG; q=1"])
async def test_the_type_may_be_left_out(client: AsyncClient, declared: str) -> None:
    assert (await put(client, PNG, declared)).json()["content_type"] == "image/png"


@pytest.mark.parametrize(
    ("content", "declared", "detail"),
    [
        (b"", "image/png", "Send a JPEG, PNG, GIF or WebP image."),
        (b"\x89PNG", "image/png", "Send a JPEG"),
        (b"<svg onload='alert(1)'/>", "image/png", "Send a JPEG"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "image/webp", "Send a JPEG"),
        (PNG, "image/jpeg", "The body is image/png: send it with this Content-Type, or without one."),
        (PNG, "text/html", "The body is image/png"),
        (PNG, "multipart/form-data; boundary=x", "The body is image/png"),
    ],
)
async def test_another_type_is_415(
    client: AsyncClient, settings: Settings, content: bytes, declared: str, detail: str
) -> None:
    assert_problem(await put(client, content, declared), 415, detail)
    assert stored(settings) == []


async def pieces(count: int) -> AsyncIterator[bytes]:
    yield PNG[:8]
    for _ in range(count):
        yield bytes(65_536)


@pytest.mark.parametrize("content", [PNG[:8] + bytes(MOST_BYTES - 7), "pieces"])
async def test_a_larger_one_is_413(client: AsyncClient, settings: Settings, content: Any) -> None:
    answer = await put(client, pieces(80) if content == "pieces" else content)
    assert_problem(answer, 413, f"At most {MOST_BYTES} bytes are allowed here.")
    assert stored(settings) == []
    assert (await put(client, PNG[:8] + bytes(MOST_BYTES - 8))).status_code == 201


async def test_an_unknown_product_is_404_before_the_body_is_read(client: AsyncClient, settings: Settings) -> None:
    reads = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal reads
        reads += 1
        yield PNG

    assert_problem(await client.put("/api/products/9/image", content=body()), 404, "Product 9 does not exist.")
    assert (reads, stored(settings)) == (0, [])
    assert_problem(await client.get("/api/products/9/image"), 404, "Image of product 9 does not exist.")


async def test_a_client_that_leaves_has_stored_nothing(
    client: AsyncClient, service: Service, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    headers = {**client.headers, "Host": "test", "Content-Length": "100000"}
    lines = [f"PUT {URL} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    received, answered = 0, asyncio.Event()
    waiting = asyncio.Event()

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def watched_receive() -> Any:
            nonlocal received
            received += 1
            if received == 2:  # what came first is in a file
                waiting.set()
            return await receive()

        try:
            await service(scope, watched_receive, send)
        finally:
            answered.set()

    async with served(watched) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("\r\n".join(lines).encode() + PNG[:50_000])
        await writer.drain()
        await waiting.wait()
        assert len(stored(settings)) == 1
        held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        assert await onlooker.fetchval(held) == 0  # it holds no connection
        writer.close()
        await answered.wait()
    assert stored(settings) == []
    assert await onlooker.fetchval("SELECT count(*) FROM product_images") == 0


FAILURES = {
    "flush": "BEFORE INSERT ON product_images",
    "commit": "AFTER INSERT ON product_images DEFERRABLE INITIALLY DEFERRED",
}


@pytest.mark.parametrize("when", FAILURES)
async def test_a_transaction_that_fails_leaves_no_file(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection, when: str
) -> None:
    etag = (await put(client, JPEG)).headers["ETag"]
    kind = "CONSTRAINT TRIGGER" if when == "commit" else "TRIGGER"
    failing = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$"
    event = FAILURES[when].replace("INSERT", "INSERT OR UPDATE") if when == "commit" else FAILURES[when]
    await onlooker.execute(f"{failing}; CREATE {kind} fail {event} FOR EACH ROW EXECUTE FUNCTION fail()")
    try:
        assert (await put(client)).status_code == 500
    finally:
        await onlooker.execute("DROP FUNCTION fail() CASCADE")
    assert [path.read_bytes() for path in stored(settings)] == [JPEG]
    shown = await client.get(URL)
    assert (shown.content, shown.headers["ETag"]) == (JPEG, etag)


async def test_uploads_at_once_leave_one_file(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection
) -> None:
    """Without the lock on the product each finds no image before its own, and deletes none."""
    waiting = """SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
        AND pg_stat_clear_snapshot() IS NOT NULL"""
    async with asyncio.TaskGroup() as tasks, onlooker.transaction():
        await onlooker.execute("SELECT FROM products FOR UPDATE")
        uploads = [tasks.create_task(put(client, PNG + bytes([number]))) for number in range(4)]
        while await onlooker.fetchval(waiting) < len(uploads):
            pass
    answers = [upload.result() for upload in uploads]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    last = max(answers, key=lambda answer: int(answer.json()["version"]))
    assert [path.read_bytes() for path in stored(settings)] == [(await client.get(URL)).content]
    assert (await client.get(URL)).headers["ETag"] == last.headers["ETag"]


async def test_conditions_of_a_change(client: AsyncClient, settings: Settings) -> None:
    assert_problem(await put(client, If_Match="*"), 412, "Image of product 1 was modified")
    assert stored(settings) == []
    etag = (await put(client, If_None_Match="*")).headers["ETag"]
    assert (await put(client, If_None_Match="*")).status_code == 412
    assert (await client.get(URL)).headers["ETag"] == etag
    again = await put(client, JPEG, If_Match=etag)
    assert again.status_code == 200
    for answer in (await put(client, If_Match=etag), await client.delete(URL, headers={"If-Match": etag})):
        assert_problem(answer, 412, "was modified since you read it. Fetch it again and retry.")
    assert [path.read_bytes() for path in stored(settings)] == [JPEG]
    assert (await client.delete(URL, headers={"If-Match": again.headers["ETag"]})).status_code == 204
    # No version is used twice, so that the one which is gone is not taken for a new one with the same bytes.
    other = (await put(client, JPEG)).headers["ETag"]
    assert other not in {etag, again.headers["ETag"]}
    assert (await put(client, If_Match=again.headers["ETag"])).status_code == 412


async def test_a_first_one_is_conditional_too_where_that_is_required(client: AsyncClient, settings: Settings) -> None:
    strict = settings.model_copy(update={"http": settings.http.model_copy(update={"require_if_match": True})})
    async with serve(create_app(strict)) as service, service.client(client.headers) as strictly:
        assert (await put(strictly)).status_code == 428
        assert (await put(strictly, If_None_Match="*")).status_code == 201


async def test_conditions_of_a_get(client: AsyncClient) -> None:
    etag = (await put(client)).headers["ETag"]
    shown = await client.get(URL)
    modified = shown.headers["Last-Modified"]
    for headers in ({"If-None-Match": etag}, {"If-Modified-Since": modified}):
        for ranged in ({}, {"Range": "bytes=0-1"}, {"Range": f"bytes={len(PNG)}-"}):
            answer = await client.get(URL, headers=headers | ranged)
            assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)
    assert (await client.get(URL, headers={"If-Match": '"other"'})).status_code == 412
    assert (await client.get(URL, headers={"If-None-Match": '"other"'})).content == PNG


async def test_ranges(client: AsyncClient) -> None:
    etag = (await put(client)).headers["ETag"]
    size = len(PNG)
    for value, content in [("0-0", PNG[:1]), ("70000-", PNG[70000:]), ("-5", PNG[-5:]), ("5-999999999", PNG[5:])]:
        answer = await client.get(URL, headers={"Range": f"bytes={value}", "If-Range": etag, "Accept-Encoding": "gzip"})
        start = PNG.rindex(content)
        assert (answer.status_code, answer.content) == (206, content)
        assert (
            answer.headers["Content-Range"]
            == f"bytes {start if value != '0-0' else 0}-{(start if value != '0-0' else 0) + len(content) - 1}/{size}"
        )
        assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(len(content)), etag)
    for headers in ({"Range": "bytes=0-1,3-4"}, {"Range": "lines=1-2"}, {"Range": "bytes=0-1", "If-Range": '"other"'}):
        assert (await client.get(URL, headers=headers)).content == PNG
    answer = await client.get(URL, headers={"Range": f"bytes={size}-"})
    assert_problem(answer, 416, f"The file has {size} bytes")
    assert answer.headers["Content-Range"] == f"bytes */{size}"


async def test_a_file_that_is_not_there_is_503(client: AsyncClient, settings: Settings) -> None:
    await put(client)
    for path in stored(settings):
        path.unlink()
    answer = await client.get(URL)
    assert_problem(answer, 503, "The file is not there at this moment. Try again.")
    assert answer.headers["Retry-After"] == "1"


async def test_storage_that_fails_is_503_and_nothing_is_written(
    client: AsyncClient, settings: Settings, onlooker: asyncpg.Connection, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    storage = settings.storage.model_copy(update={"folder": tmp_path / "file"})
    app = create_app(settings.model_copy(update={"storage": storage}))
    async with serve(app) as service, service.client(client.headers) as broken:
        assert_problem(await put(broken), 503, "The storage of files cannot be reached. Try again later.")
    assert await onlooker.fetchval("SELECT count(*) FROM product_images") == 0


async def test_a_product_and_its_image_go_together(client: AsyncClient, onlooker: asyncpg.Connection) -> None:
    await put(client)
    assert (await client.delete("/api/products/1")).status_code == 204
    assert (await client.get(URL)).status_code == 404
    assert await onlooker.fetchval("SELECT count(*) FROM product_images") == 0


async def test_files_of_no_row_are_swept_once_they_are_old(
    client: AsyncClient, settings: Settings, database_url: str
) -> None:
    await create_product(client, sku="LAP-000002")
    await put(client)
    await client.put("/api/products/2/image", content=JPEG)
    assert (await client.delete("/api/products/2")).status_code == 204
    folder = settings.storage.folder / "products"
    for name in ("died.part", "new"):
        (folder / name).touch()
    for path in stored(settings):
        if path.name != "new":
            os.utime(path, (0, 0))
    variables = {"DATABASE_URL": database_url, "STORAGE_FOLDER": str(settings.storage.folder)}
    done = await to_thread.run_sync(partial(run, "sweep-uploads", **variables))
    assert (done.returncode, done.stdout) == (0, "Deleted 2 files.\n"), done.stderr
    assert (await client.get(URL)).content == PNG
    assert len(stored(settings)) == 2
