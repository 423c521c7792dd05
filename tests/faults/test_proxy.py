"""The proxy itself: it adds nothing by itself, and each fault is the one that its name says."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from time import perf_counter

import pytest

from tests.faults.proxy import Proxy

MESSAGE = bytes(range(256)) * 4
SOON_SECONDS = 0.3


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy to a server that echoes."""
    with echoing() as port, Proxy(port) as proxy:
        yield proxy


@contextmanager
def echoing() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    threads = []

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=echo, args=(connection,)))
            threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(10)


@contextmanager
def connected(proxy: Proxy, seconds: float = 10) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), seconds) as connection:
        yield connection


def received(connection: socket.socket, length: int = len(MESSAGE)) -> bytes:
    data = b""
    while len(data) < length and (more := connection.recv(65536)):
        data += more
    return data


def echoed(connection: socket.socket) -> bool:
    connection.sendall(MESSAGE)
    return received(connection) == MESSAGE


def test_it_passes_everything_and_the_ends(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert echoed(connection)
        connection.sendall(MESSAGE)
        connection.shutdown(socket.SHUT_WR)
        assert received(connection) == MESSAGE
        assert connection.recv(1) == b""


def test_latency_delays_each_answer_by_as_much(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert echoed(connection)
        with proxy.slow(0.2):
            began = perf_counter()
            connection.sendall(MESSAGE)
            connection.sendall(MESSAGE)
            assert received(connection, 2 * len(MESSAGE)) == 2 * MESSAGE
            assert perf_counter() - began >= 0.2
        assert echoed(connection)


def test_a_limited_bandwidth_takes_its_time_and_loses_nothing(proxy: Proxy) -> None:
    with connected(proxy) as connection, proxy.narrow(5000):
        began = perf_counter()
        assert echoed(connection)
        assert perf_counter() - began >= 0.8 * len(MESSAGE) / 5000


def test_a_blackhole_keeps_everything_until_it_ends(proxy: Proxy) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(connected(proxy, SOON_SECONDS))
        assert echoed(old)
        with proxy.blackhole():
            new = stack.enter_context(connected(proxy, SOON_SECONDS))
            for connection in (old, new):
                connection.sendall(MESSAGE)
                with pytest.raises(TimeoutError):
                    connection.recv(1)
        for connection in (old, new):
            connection.settimeout(10)
            assert received(connection) == MESSAGE


def test_a_half_open_connection_is_silent_and_a_new_one_works(proxy: Proxy) -> None:
    with connected(proxy, SOON_SECONDS) as old:
        assert echoed(old)
        with proxy.half_open():
            old.sendall(MESSAGE)
            with pytest.raises(TimeoutError):
                old.recv(1)
            with connected(proxy) as new:
                assert echoed(new)
        with pytest.raises(ConnectionResetError):
            old.recv(1)


def test_a_reset_ends_the_connections_and_refuses_no_other(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert echoed(connection)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            received(connection)
    with connected(proxy) as connection:
        assert echoed(connection)


def test_what_is_refused_is_refused_until_the_end(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert echoed(connection)
        with proxy.refuse():
            with pytest.raises(ConnectionResetError):
                received(connection)
            with pytest.raises(ConnectionRefusedError), connected(proxy):
                pass
    with connected(proxy) as connection:
        assert echoed(connection)


def test_a_message_is_cut_in_its_middle(proxy: Proxy) -> None:
    with connected(proxy) as connection:
        assert echoed(connection)
        proxy.cut(1)
        connection.sendall(MESSAGE)
        assert received(connection) == MESSAGE[: len(MESSAGE) // 2]
    with connected(proxy) as connection:
        assert echoed(connection)


def test_a_server_that_is_down_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Proxy(port) as proxy, suppress(ConnectionResetError), connected(proxy) as connection:
        assert received(connection) == b""
