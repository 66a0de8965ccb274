"""moto's HTTP server in a process of its own: it prints its address, and ends with its standard input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


@contextmanager
def serve_s3() -> Iterator[str]:
    """Such a server for the block; yields its address."""
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def s3_environment(address: str, key: str, secret: str) -> dict[str, str]:
    """The AWS variables of such a server."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }


def use_s3(patch: pytest.MonkeyPatch, address: str, key: str, secret: str) -> dict[str, str]:
    """Give this process these AWS variables and no others; return them."""
    for name in [x for x in os.environ if x.startswith("AWS_")]:
        patch.delenv(name)
    environment = s3_environment(address, key, secret)
    for name, value in environment.items():
        patch.setenv(name, value)
    return environment
