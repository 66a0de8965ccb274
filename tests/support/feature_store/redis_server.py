"""A real Redis for tests, on a free port of loopback, with a password, keeping nothing on disk unless asked to."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

PASSWORD = "s3cr3t=pass word"
needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed: `make tools` does it on Debian"
)


class RedisServer:
    """One server that can be stopped and started again under the same address."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        given = [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--requirepass",
            PASSWORD,
            "--dir",
            str(folder),
            "--save",
            "",
        ]
        self._command = ["redis-server", *given, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def connection_string(self) -> str:
        """As Feast wants it."""
        return f"127.0.0.1:{self.port},password={PASSWORD}"

    def client(self) -> Redis:
        """A connection that waits for the server to come up."""
        return Redis(
            host="127.0.0.1",
            port=self.port,
            password=PASSWORD,
            retry=Retry(ConstantBackoff(0.05), 200),
            retry_on_error=[RedisConnectionError],
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with self.client() as client:
            client.ping()

    def kill(self) -> None:
        """End it as a machine that loses power would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def serve_redis(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A server for the block."""
    server = RedisServer(folder, *options)
    server.start()
    try:
        yield server
    finally:
        server.kill()
