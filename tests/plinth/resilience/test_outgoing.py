"""The outgoing client against a real server on the loopback."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from plinth.errors import DeadlineError, UnavailableError
from plinth.http import exception_handlers
from plinth.resilience import OutgoingSettings, deadline, open_outgoing
from plinth.resilience.outgoing import MOST_HOSTS, MOST_SAVED, OutgoingTransport
from plinth.telemetry import request_id
from plinth.testing.client import served
from plinth.testing.network import reserved_port

Answer = tuple[int, Mapping[str, str]]


class Server:
    """Answers with what it was given, in order, the last one for ever; None is no answer."""

    def __init__(self) -> None:
        self.answers: list[Answer | None] = [(200, {})]
        self.requests: list[dict[str, str]] = []
        self.received, self.waiting = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.received.set()
        self.requests.append({**headers, "method": scope["method"], "body": body.decode()})
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self.waiting.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        status, extra = answer
        sent = [(name.encode(), value.encode()) for name, value in extra.items()]
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0"), *sent]})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def url(server: Server) -> AsyncIterator[str]:
    async with served(server) as port:
        yield f"http://127.0.0.1:{port}/"


# Their defaults make a test wait that expects no breaker, and the other way round.
PATIENT = {"breaker_failures": 1_000_000}
BROKEN: Answer = (503, {})
FINE: Answer = (200, {})


async def test_the_settings_are_those_of_the_client() -> None:
    async with open_outgoing(OutgoingSettings(timeout_seconds=7, connect_timeout_seconds=2)) as client:
        assert client.timeout == httpx.Timeout(7, connect=2, pool=2)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_failure_that_may_pass_is_retried(server: Server, url: str, status: int) -> None:
    server.answers = [(status, {}), (status, {}), FINE]
    async with open_outgoing(OutgoingSettings()) as client:
        assert (await client.put(url, json=[1])).status_code == 200
    assert [request["body"] for request in server.requests] == ["[1]"] * 3


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500])
async def test_other_answers_are_not(server: Server, url: str, status: int) -> None:
    server.answers = [(status, {"Location": url})]
    async with open_outgoing(OutgoingSettings()) as client:
        assert (await client.get(url)).status_code == status
    assert len(server.requests) == 1


async def test_the_last_answer_is_returned_when_all_failed(server: Server, url: str) -> None:
    server.answers = [BROKEN]
    async with open_outgoing(OutgoingSettings(retries=1)) as client:
        assert (await client.get(url)).status_code == 503
    assert len(server.requests) == 2


async def test_a_retry_releases_the_connection_of_the_call_before(server: Server, url: str) -> None:
    server.answers = [BROKEN, BROKEN, FINE]
    async with open_outgoing(OutgoingSettings(max_connections=1, connect_timeout_seconds=0.5)) as client:
        assert (await client.get(url)).status_code == 200


async def test_what_may_not_be_repeated_is_not(server: Server, url: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"once"

    server.answers = [BROKEN]
    async with open_outgoing(OutgoingSettings(**PATIENT)) as client:
        for call in (client.post(url), client.patch(url), client.put(url, content=pieces())):
            assert (await call).status_code == 503
        assert len(server.requests) == 3
        await client.post(url, headers={"Idempotency-Key": "7"})
        assert len(server.requests) == 6


async def test_a_connection_that_is_refused_is_retried_and_raised() -> None:
    with reserved_port() as port:
        async with open_outgoing(OutgoingSettings(retries=1)) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/")


async def test_a_server_that_comes_back_is_reached(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
        async with open_outgoing(OutgoingSettings()) as client:
            call = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
            closing.setblocking(False)
            accepted, _ = await asyncio.get_running_loop().sock_accept(closing)
            accepted.close()  # without a response
            accepted, _ = await asyncio.get_running_loop().sock_accept(closing)
            await asyncio.get_running_loop().sock_recv(accepted, 1000)
            await asyncio.get_running_loop().sock_sendall(accepted, b"HTTP/1.1 204 No Content\r\n\r\n")
            assert (await call).status_code == 204
            accepted.close()


@pytest.mark.parametrize("dated", [False, True])
async def test_retry_after_is_respected_within_the_time(server: Server, url: str, dated: bool) -> None:
    async with open_outgoing(OutgoingSettings(timeout_seconds=60)) as client:
        for seconds in (30, 90):
            at = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
            server.requests.clear()
            server.answers = [(429, {"Retry-After": at if dated else str(seconds)}), FINE]
            if seconds == 90:  # longer than a call may take, so that the answer is the caller's
                assert (await client.get(url)).status_code == 429
            else:
                call = asyncio.create_task(client.get(url))
                await server.received.wait()
                await asyncio.sleep(0.3)  # longer than any backoff
                assert not call.done()
                call.cancel()
                await asyncio.wait([call])
                async with deadline(10):
                    server.answers = [(429, {"Retry-After": at if dated else str(seconds)}), FINE]
                    assert (await client.get(url)).status_code == 429


@pytest.mark.parametrize("header", ["0", "soon", "-5", "1e9", "Sun, 06 Nov 1994 08:49:37 GMT", "²"])
async def test_a_retry_after_that_says_nothing_is_a_backoff(server: Server, url: str, header: str) -> None:
    server.answers = [(503, {"Retry-After": header}), FINE]
    async with open_outgoing(OutgoingSettings()) as client:
        assert (await client.get(url)).status_code == 200


async def test_retries_are_at_most_a_tenth_of_the_calls(server: Server, url: str) -> None:
    server.answers = [BROKEN]
    async with open_outgoing(OutgoingSettings(retries=1, **PATIENT)) as client:
        for _ in range(100):
            await client.get(url)
    assert len(server.requests) - 100 <= MOST_SAVED + 100 / 10
    assert len(server.requests) - 100 > MOST_SAVED


async def test_a_breaker_opens_after_failures_in_a_row(server: Server, url: str) -> None:
    settings = OutgoingSettings(retries=0, breaker_failures=3, breaker_seconds=600)
    async with open_outgoing(settings) as client:
        server.answers = [BROKEN, BROKEN, FINE, BROKEN]
        for _ in range(6):
            await client.get(url)
        assert len(server.requests) == 6
        with pytest.raises(UnavailableError, match="does not respond") as raised:
            await client.get(url)
        assert isinstance(raised.value, httpx.HTTPError)  # which libraries that are given the client handle
        assert 590 <= raised.value.retry_after_seconds <= 600
        assert len(server.requests) == 6


async def test_an_open_breaker_is_a_503_with_retry_after(server: Server, url: str) -> None:
    server.answers = [BROKEN]
    app = FastAPI(exception_handlers=exception_handlers)
    async with (
        open_outgoing(OutgoingSettings(retries=0, breaker_failures=1, breaker_seconds=600)) as client,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as caller,
    ):

        @app.get("/")
        async def call() -> int:
            return (await client.get(url)).status_code

        assert (await caller.get("/")).json() == 503
        response = await caller.get("/")
    assert response.status_code == 503
    assert 590 <= int(response.headers["Retry-After"]) <= 600
    assert "127.0.0.1" in response.json()["detail"]


@asynccontextmanager
async def opened(server: Server, url: str) -> AsyncIterator[Callable[[], Awaitable[httpx.Response]]]:
    server.answers = [BROKEN]
    async with open_outgoing(OutgoingSettings(retries=0, breaker_failures=1, breaker_seconds=1)) as client:
        await client.get(url)
        with pytest.raises(UnavailableError):
            await client.get(url)
        server.requests.clear()
        yield lambda: client.get(url)


async def probed(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """What the first call receives that the breaker lets through."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call()
            except UnavailableError:
                await asyncio.sleep(0.01)


async def test_one_call_probes_and_closes_the_breaker(server: Server, url: str) -> None:
    async with opened(server, url) as call:
        server.answers = [None, FINE]
        probe = asyncio.create_task(probed(call))
        await server.waiting.wait()
        for _ in range(10):
            with pytest.raises(UnavailableError):
                await call()
        probe.cancel()  # its place is given to another one
        await asyncio.wait([probe])
        assert (await probed(call)).status_code == 200
        assert (await call()).status_code == 200


async def test_a_probe_that_fails_opens_it_again(server: Server, url: str) -> None:
    async with opened(server, url) as call:
        assert (await probed(call)).status_code == 503
        with pytest.raises(UnavailableError):
            await call()
        assert len(server.requests) == 1


async def test_hosts_have_breakers_of_their_own(server: Server, url: str) -> None:
    server.answers = [FINE]
    with reserved_port() as port:
        async with open_outgoing(OutgoingSettings(retries=0, breaker_failures=1)) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(f"http://127.0.0.1:{port}/")
            with pytest.raises(UnavailableError):
                await client.get(f"http://127.0.0.1:{port}/other")
            assert (await client.get(url)).status_code == 200


async def test_a_bounded_number_of_hosts_is_remembered(server: Server, url: str) -> None:
    transport = OutgoingTransport(httpx.ASGITransport(server), OutgoingSettings())
    async with httpx.AsyncClient(transport=transport) as client:
        for number in range(MOST_HOSTS + 10):
            await client.get(f"http://host{number}.example/")
    assert len(transport._hosts) == MOST_HOSTS


async def test_a_deadline_ends_a_call_and_closes_its_connection(server: Server, url: str) -> None:
    server.answers = [None]
    async with open_outgoing(OutgoingSettings(max_connections=1, **PATIENT)) as client:
        for _ in range(10):
            with pytest.raises(DeadlineError):
                async with deadline(0.05):
                    await client.get(url)
        server.answers = [FINE]
        assert (await client.get(url)).status_code == 200


async def test_timeouts_are_no_longer_than_the_deadline(server: Server, url: str) -> None:
    """Also in a task that a deadline does not cancel, since another one waits for it."""
    server.answers = [None]
    async with open_outgoing(OutgoingSettings(timeout_seconds=600)) as client:
        async with deadline(60):
            request = client.build_request("GET", url)
            call = asyncio.create_task(client.send(request))
            await server.waiting.wait()
            assert 0 < request.extensions["timeout"]["read"] < 60.000001
            assert request.extensions["timeout"]["connect"] == 3
            call.cancel()
            await asyncio.wait([call])
        with pytest.raises(DeadlineError):
            async with deadline(0):
                await client.get(url)


async def test_a_wait_for_a_connection_is_no_failure_of_the_host(server: Server, url: str) -> None:
    server.answers = [None, FINE]
    settings = OutgoingSettings(max_connections=1, connect_timeout_seconds=1, breaker_failures=1)
    async with open_outgoing(settings) as client:
        call = asyncio.create_task(client.get(url))
        await server.waiting.wait()
        with pytest.raises(httpx.PoolTimeout):
            await client.get(url)
        call.cancel()
        await asyncio.wait([call])
        assert (await client.get(url)).status_code == 200


async def test_a_slow_server_is_a_failure_and_is_retried(server: Server, url: str) -> None:
    server.answers = [None, FINE]
    async with open_outgoing(OutgoingSettings(timeout_seconds=0.5)) as client:
        assert (await client.get(url)).status_code == 200
        server.answers = [None]
        with pytest.raises(httpx.ReadTimeout):
            await client.post(url)


async def test_the_request_id_is_passed_on(server: Server, url: str) -> None:
    async with open_outgoing(OutgoingSettings()) as client:
        await client.get(url)
        token = request_id.set("abc")
        try:
            await client.get(url)
            await client.get(url, headers={"X-Request-ID": "own"})
        finally:
            request_id.reset(token)
    assert [request.get("x-request-id") for request in server.requests] == [None, "abc", "own"]


async def test_credentials_do_not_follow_a_redirect(server: Server, url: str) -> None:
    """httpx follows none unless it is told to, and then not with the credentials for another host."""
    server.answers = [(302, {"Location": url.replace("127.0.0.1", "localhost")}), FINE]
    async with open_outgoing(OutgoingSettings()) as client:
        response = await client.get(url, headers={"Authorization": "Bearer secret"})
        assert response.status_code == 302
        server.requests.clear()
        server.answers = [(302, {"Location": url.replace("127.0.0.1", "localhost")}), FINE]
        await client.get(url, headers={"Authorization": "Bearer secret"}, follow_redirects=True)
    assert [request.get("authorization") for request in server.requests] == ["Bearer secret", None]
