"""Streams that never end by themselves let a worker stop."""

import signal
import socket
from contextlib import ExitStack

from tests.plinth.serving.conftest import Serve

REQUEST = b"GET /watch HTTP/1.1\r\nHost: test\r\n\r\n"
WORKERS = 2


def read_until(client: socket.socket, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        data = client.recv(10_000)
        assert data, received
        received += data
    return received


def test_streams_end_cleanly_when_their_worker_stops(serve: Serve) -> None:
    with serve("tests.plinth.serving.watching:app", workers=WORKERS) as server:
        with ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(20)]
            for client in clients:
                client.settimeout(30)
                client.sendall(REQUEST)
                read_until(client, b"look\n\r\n")
            server.process.send_signal(signal.SIGTERM)
            for client in clients:
                read_until(client, b"0\r\n\r\n")  # the last chunk of a complete response
                assert client.recv(1) == b""
        output = server.wait_until_exited()
        assert server.process.returncode == 0
        assert output.count("Application shutdown complete.") == WORKERS
        assert "Cancel" not in output
