"""A Prefect server for one command, where none is configured.

Prefect starts one itself when a flow begins, and for that loads the server's code into the command too, which takes two seconds. This one
starts in its own process while the command loads its own libraries.
"""

from __future__ import annotations

import atexit
import gc
import http.client
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from tasks.errors import RectifierError
from tasks.observe.events import names_a_server

_HOST = "127.0.0.1"
# The kernel ends the server with its parent, also after a SIGKILL: 1 is PR_SET_PDEATHSIG, 15 SIGTERM.
# The objects of loaded code stay, so the garbage collector need not look at them again and again: that takes a quarter of the time.
_UVICORN = """
import ctypes, gc
ctypes.CDLL(None).prctl(1, 15)
gc.disable()
import prefect.server.api.server, uvicorn
gc.freeze()
gc.enable()
uvicorn.main()
"""
_SERVER = ("-c", _UVICORN, "--factory", "prefect.server.api.server:create_app", "--log-level", "error")
# As Prefect's own temporary server: no page, and no services that a short life does not need.
_SHORT_LIVED = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
_PATIENCE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"


@contextmanager
def temporary_server_starts() -> Iterator[None]:
    """Start a server, and at the end of the block wait until it answers. The block loads the flow, and Prefect with it.

    Nothing is started where Prefect is loaded already or a server may be configured: Prefect knows better then. The server ends with the
    command, after Prefect has sent it what is unsent. Raises RectifierError if the server ends or does not answer in time.
    """
    if "prefect" in sys.modules or names_a_server():
        with _loading():
            yield
        return
    with socket.socket() as free:
        free.bind((_HOST, 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, *_SERVER, "--host", _HOST, "--port", str(port)],
        env=os.environ | _SHORT_LIVED,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Functions registered first are called last: Prefect registers its own when it is loaded.
    atexit.register(_stop, server)
    os.environ["PREFECT_API_URL"] = f"http://{_HOST}:{port}/api"
    # Prefect logs where to see a run in the browser, and this server shows no pages.
    logging.getLogger("prefect.flow_runs").addFilter(lambda record: not record.getMessage().startswith("View at "))
    with _loading():
        yield
    end = time.monotonic() + float(os.environ.get(_PATIENCE, 120))
    while not prefect_answers(port):
        if server.poll() is not None or time.monotonic() > end:
            how = "does not answer" if server.returncode is None else f"ended with status {server.returncode}"
            raise RectifierError(
                f"the temporary Prefect server {how}; prefect server start shows why, and PREFECT_API_URL names a server to use instead"
            )
        time.sleep(0.05)


@contextmanager
def _loading() -> Iterator[None]:
    """Load code in the block without the garbage collector, as the server does."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def prefect_answers(port: int) -> bool:
    """Whether a Prefect server answers at the port of this machine."""
    # http.client asks the server itself. urllib would ask a proxy that the environment names.
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection(_HOST, port, timeout=5)) as server,
    ):
        server.request("GET", "/api/health")
        return server.getresponse().read() == b"true"
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(timeout=5)
    except subprocess.TimeoutExpired:
        server.kill()
