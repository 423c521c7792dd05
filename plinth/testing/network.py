"""Addresses to listen on."""

import errno
import socket

from plinth.testing.locks import SetupError

LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK, port: int = 0) -> int:
    """The port, or any free one for 0. Raises SetupError where it cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # As servers do: connections of an earlier one that linger are no hindrance.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SetupError(
                f"Port {port} on {host} is in use: stop what listens there, or choose another, as in "
                f"`make run PORT={port + 1}`."
            ) from error
        raise SetupError(f"{host}:{port} cannot be listened on ({error.strerror}): set HOST= and PORT=.") from error
