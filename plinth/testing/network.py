"""Free ports."""

import errno
import socket

from plinth.testing.locks import SetupError

LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK, port: int = 0) -> int:
    """Return `port`, or any free one if it is 0. Raises SetupError if nothing can listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            # As servers do: lingering connections of an earlier listener must not block the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            return int(listener.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SetupError(
                f"Port {port} on {host} is in use: stop the program that listens there, or choose another port, as in "
                f"`make run PORT={port + 1}`."
            ) from error
        raise SetupError(f"{host}:{port} is not available ({error.strerror}): set HOST= and PORT=.") from error
