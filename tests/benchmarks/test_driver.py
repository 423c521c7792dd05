"""The bundled load driver, and the requests of the scenarios."""

import asyncio
import json
from random import Random

import pytest

from benchmarks import client
from benchmarks.scenarios import CREATE, SCENARIOS, Scenario


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_seed_gives_the_same_number_of_the_same_lines(scenario: Scenario) -> None:
    lines = list(scenario.lines(Random(1), 100, 50))
    assert len(lines) == 50
    assert lines == list(scenario.lines(Random(1), 100, 50))
    assert all(line.split(" ")[0] in {"GET", "POST", "PATCH"} for line in lines)


def test_no_product_is_created_twice() -> None:
    random = Random(1)
    skus = [json.loads(line.split(" ", 2)[2])["sku"] for _ in range(2) for line in CREATE.lines(random, 100, 5000)]
    assert len(set(skus)) == len(skus)


def test_a_line_is_encoded_as_a_request() -> None:
    assert client.request("GET /a?b=c") == b"GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    expected = b"GET /a HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: *\r\n\r\n"
    assert client.request("GET /a If-None-Match: *") == expected
    head, body = client.request('PATCH /a {"stock": "é 1"}').split(b"\r\n\r\n")
    assert body == '{"stock": "é 1"}'.encode()
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize("closes", [False, True])
async def test_it_counts_responses_and_failures(closes: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when the server closes the connection after each response, and when a response arrives in pieces."""
    sent = {b"/good": 0, b"/bad": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1000):
            path = head.split(b" ", 2)[1]
            status = b"200 OK" if path == b"/good" else b"503 Busy"
            close = b"Connection: close\r\n" if closes else b""
            writer.write(b"HTTP/1.1 %s\r\n%sContent-Length: 2\r\n\r\n{" % (status, close))
            await writer.drain()
            await asyncio.sleep(0.001)
            writer.write(b"}")
            sent[path] += 1
            if closes:
                break
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        await client.main(server.sockets[0].getsockname()[1], ["GET /good", "GET /bad"], connections=2, seconds=0.2)
        await asyncio.sleep(0.05)
    figures = json.loads(capsys.readouterr().out)
    assert figures["requests"] > 10
    assert sum(sent.values()) - figures["requests"] <= 2  # requests in progress at the end
    assert abs(sent[b"/bad"] - figures["errors"]) <= 2
    assert 0.5 < figures["p50_ms"] <= figures["p99_ms"]
