#!/usr/bin/env -S python -IS
"""Exits with 0 if the service answers 200 at the given path. Runs every few seconds, so it imports little."""

import os
import socket
import sys

HOST = os.environ.get("HOST", "127.0.0.1")
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}

try:
    with socket.create_connection(
        (LOCAL.get(HOST, HOST), int(os.environ.get("PORT", "8000"))), timeout=2
    ) as connection:
        connection.sendall(b"GET %s HTTP/1.0\r\n\r\n" % sys.argv[1].encode())
        answer = connection.makefile("rb").read(4096)
except OSError as error:
    sys.exit(str(error))
sys.stdout.write(answer.partition(b"\r\n\r\n")[2].decode(errors="replace"))
sys.exit(answer.split(b" ", 2)[1:2] != [b"200"])
