"""The metrics over HTTP, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from tasks.errors import InputError
from tasks.observe.config import WatchConfig
from tasks.observe.metrics_page import LiveMetrics

LOOPBACK = "127.0.0.1"


@contextmanager
def serve_metrics(config: WatchConfig, port: int) -> Iterator[str]:
    """Serve for the block and yield the URL; ``port`` 0 takes a free one. Raises InputError where the port is taken."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LiveMetrics(config))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; choose another") from error
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
