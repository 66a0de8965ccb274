"""An HTTP proxy in front of an S3 server that answers some requests wrongly, late or not at all."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# A fault is an HTTP status to answer, seconds to wait before the request goes on, "hang up" at once, "lose the answer" of the server, or
# send "half" of it.
Fault = int | float | str | None
CODES = {500: "InternalError", 503: "SlowDown", 403: "InvalidAccessKeyId", 404: "NoSuchBucket"}
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}


@dataclass(slots=True)
class Weather:
    """The faults of a proxy: ``fault`` chooses by the number, method and path of a request. ``seen`` lists the requests."""

    fault: Callable[[int, str, str], Fault] = lambda number, method, path: None
    seen: list[tuple[str, str, Fault]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self, fault: Callable[[int, str, str], Fault] | None = None) -> None:
        """Forget the requests, and use these faults from now on."""
        self.fault, self.seen = fault or (lambda number, method, path: None), []

    def of(self, method: str, path: str) -> Fault:
        """Count a request and return its fault."""
        with self.lock:
            fault = self.fault(len(self.seen) + 1, method, path)
            self.seen.append((method, path, fault))
            return fault

    @property
    def faults(self) -> int:
        """The number of requests with a fault."""
        return sum(fault is not None for _, _, fault in self.seen)


@contextmanager
def serve_s3_proxy(target: str) -> Iterator[tuple[str, Weather]]:
    """Serve a proxy of ``target`` on a free port of loopback for the block. Yield its address and its faults."""
    weather, host = Weather(), urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            pass

        def handle_any(self) -> None:
            body = self._body()
            fault = weather.of(self.command, self.path)
            if isinstance(fault, float):
                time.sleep(fault)
            if fault == "hang up":
                self.close_connection = True
                self.connection.close()
                return
            if isinstance(fault, int):
                body = f"<Error><Code>{CODES[fault]}</Code><Message>so</Message></Error>".encode()
                self._answer(fault, {"content-type": "application/xml"}, body)
                return
            upstream = http.client.HTTPConnection(host, timeout=60)
            try:
                sent = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
                upstream.request(self.command, self.path, body, sent)
                answer = upstream.getresponse()
                if fault == "lose the answer":
                    answer.read()
                    self.close_connection = True
                    self.connection.close()
                    return
                self._answer(answer.status, dict(answer.getheaders()), answer.read(), half=fault == "half")
            finally:
                upstream.close()

        def _body(self) -> bytes | None:
            if self.headers.get("transfer-encoding", "").lower() == "chunked":
                parts = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                while self.rfile.readline().strip():
                    pass
                self.headers["content-length"] = str(sum(map(len, parts)))
                return b"".join(parts)
            size = int(self.headers.get("content-length", 0))
            return self.rfile.read(size) if size else None

        def _answer(self, status: int, headers: dict[str, str], body: bytes, half: bool = False) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in HOP | {"content-length", "date", "server"}:
                        self.send_header(name, value)
                length = headers.get("Content-Length") if self.command == "HEAD" else None
                self.send_header("content-length", length or str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if half else body)
                if half:
                    self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", weather
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
