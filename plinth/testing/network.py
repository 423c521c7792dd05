"""Ports that are free, and stay so until a server listens on them."""

import errno
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from plinth.testing.locks import SetupError

LOOPBACK = "127.0.0.1"


@contextmanager
def reserved_port(host: str = LOOPBACK, port: int = 0) -> Iterator[int]:
    """Reserve `port`, or any free one if it is 0, for servers that start, stop and start again during the block.

    It is bound and not listened on, so the kernel gives it to no other program, while a server may listen on it: both
    set SO_REUSEADDR. Only Linux allows that; elsewhere the port is released at once. Raises SetupError if it is in use.
    """
    with ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            reservation = stack.enter_context(socket.socket(family, kind, protocol))
            reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reservation.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SetupError(
                    f"Port {port} on {host} is in use: stop the program that listens there, or choose another port, "
                    f"as in `make run PORT={port + 1}`."
                ) from error
            raise SetupError(f"{host}:{port} is not available ({error.strerror}): set HOST= and PORT=.") from error
        port = reservation.getsockname()[1]
        if sys.platform != "linux":
            stack.close()
        yield port
