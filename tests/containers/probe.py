"""Stands in for the replicas: returns what Nginx sends, and misbehaves depending on the path. Plain sockets."""

import asyncio
import json
from collections import Counter

asked: Counter[str] = Counter()
released = asyncio.Event()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = line.split()
            asked[f"{method} {path}"] += 1
            if path == "/drop":
                break
            await respond(writer, path, headers)
    except (EOFError, ConnectionError):
        pass
    writer.close()


async def respond(writer: asyncio.StreamWriter, path: str, headers: dict[str, str]) -> None:
    if path == "/events":
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n"
        writer.write(head + b'Transfer-Encoding: chunked\r\n\r\nf\r\ndata: "first"\n\n\r\n')
        await released.wait()
        released.clear()
        writer.write(b'10\r\ndata: "second"\n\n\r\n0\r\n\r\n')
        return
    if path == "/hold":
        await released.wait()
    if path == "/release":
        released.set()
    body = json.dumps({"headers": headers, "asked": asked}).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def main() -> None:
    async with await asyncio.start_server(answer, "0.0.0.0", 8000) as server:
        await server.serve_forever()


asyncio.run(main())
