"""An HTTP server that keeps what it is sent: stands in for a collector, a Sentry, and a service that is called."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LIMIT_SECONDS = 300
Found = TypeVar("Found")


class Received(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes


class Span(NamedTuple):
    name: str
    kind: int
    trace_id: str
    id: str
    parent_id: str
    attributes: dict[str, str]
    resource: dict[str, str]
    status: tuple[int, str]
    text: str
    """All of it, to look for what it must not contain."""


class Receiver:
    def __init__(self) -> None:
        self.requests: list[Received] = []
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.add(Received(self.path, dict(self.headers), body))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST  # noqa: N815 - the name that http.server calls

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, request: Received) -> None:
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def wait_for(self, find: Callable[[], Found | None]) -> Found:
        """Return what `find` returns, once that is not None."""
        found: list[Found] = []

        def is_found() -> bool:
            found[:] = [] if (result := find()) is None else [result]
            return bool(found)

        with self._changed:
            assert self._changed.wait_for(is_found, LIMIT_SECONDS), self.spans()
        return found[0]

    def spans(self) -> list[Span]:
        found = []
        for request in self.requests:
            if request.path != "/v1/traces":
                continue
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                about = _attributes(resource.resource)
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    trace, id, parent = (each.hex() for each in (span.trace_id, span.span_id, span.parent_span_id))
                    status, own = (span.status.code, span.status.message), _attributes(span)
                    found.append(Span(span.name, span.kind, trace, id, parent, own, about, status, str(span)))
        return found

    def span(self, name: str, **attributes: str) -> Span:
        """Wait for a span."""

        def find() -> Span | None:
            named = (span for span in self.spans() if span.name == name)
            return next((span for span in named if attributes.items() <= span.attributes.items()), None)

        return self.wait_for(find)

    def events(self) -> list[dict[str, Any]]:
        """What a Sentry was sent: an envelope is lines of JSON, of which an item's header comes before the item."""
        envelopes = [request.body.split(b"\n") for request in self.requests if request.path.endswith("/envelope/")]
        items = [(json.loads(lines[1]), lines[2]) for lines in envelopes]
        return [json.loads(body) for header, body in items if header["type"] == "event"]


def _attributes(owner: Any) -> dict[str, str]:
    values = {each.key: each.value for each in owner.attributes}
    return {name: str(getattr(value, value.WhichOneof("value"))) for name, value in values.items()}


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()
