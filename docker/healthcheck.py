#!/usr/bin/env -S python -IS
"""Exits with 0 if what runs here is well. Called every few seconds, so it imports little.

Its argument is a path at which the server must answer 200, as `/health/ready`; or, for a worker, `alive`: each process
has touched its file lately, or `ready`: each can reach the queue as well.
"""

import os
import socket
import sys
import time

HOST = os.environ.get("HOST", "127.0.0.1")
LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
SILENT_SECONDS = 30  # a worker touches its files every 5 s


def fault_of_server(path: str) -> str | None:
    address = LOCAL.get(HOST, HOST), int(os.environ.get("PORT", "8000"))
    with socket.create_connection(address, timeout=2) as connection:
        connection.sendall(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
        answer = connection.makefile("rb").read(4096)
    sys.stdout.write(answer.partition(b"\r\n\r\n")[2].decode(errors="replace"))
    return None if answer.split(b" ", 2)[1:2] == [b"200"] else "The server did not answer 200."


def fault_of_worker(wanted: str) -> str | None:
    """`alive-N` and `ready-N` are files of its process N."""
    folder = os.environ.get("JOB_STATUS_FOLDER") or sys.exit("JOB_STATUS_FOLDER is not set.")
    files = {file.name: time.time() - file.stat().st_mtime for file in os.scandir(folder)}
    processes = {name.partition("-")[2]: age for name, age in files.items() if name.startswith("alive-")}
    if not processes:
        return "No worker runs here."
    for number, age in processes.items():
        if age > SILENT_SECONDS:
            return f"Process {number} of the worker has been silent for {age:.0f} s."
        if wanted == "ready" and f"ready-{number}" not in files:
            return f"Process {number} of the worker cannot reach the queue."
    return None


try:
    sys.exit(fault_of_worker(sys.argv[1]) if sys.argv[1] in {"alive", "ready"} else fault_of_server(sys.argv[1]))
except OSError as error:
    sys.exit(str(error))
