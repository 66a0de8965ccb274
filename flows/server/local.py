"""A Prefect server and a worker as background processes of this machine.

Both, and the flow runs that the worker starts, carry the variable ``MARKER`` in their environment. It names the server's folder, so no
file with a process id can be out of date. Nothing restarts what dies: start again, or let systemd keep it up (``deployments/systemd``).
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.config.prefect_settings import PREFECT_DEFAULTS
from flows.config.run_config import RunConfig
from tasks.errors import ClusterError, InputError
from tasks.observe.temporary_server import prefect_answers

ROOT = Path(__file__).parents[2]
MARKER = "RECTIFIER_SERVER"
POOL = "catalog-rectifier"
START_PATIENCE, STOP_PATIENCE = 300.0, 20.0


def _command(name: str) -> str:
    """A program of this environment as a shell finds it: by its name, or else by its path."""
    here = Path(sys.executable).parent / name
    return name if shutil.which(name) == str(here) else shlex.quote(str(here))


@dataclass(frozen=True, slots=True)
class LocalServer:
    """The server whose database, settings and logs are in ``folder``."""

    folder: Path
    port: int = 4200

    @property
    def url(self) -> str:
        """Address of the pages. The API is below it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the server, the worker and whoever asks them."""
        return PREFECT_DEFAULTS | {
            MARKER: str(self.folder),
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_UI_URL": self.url,
            "PREFECT_LOGGING_COLORS": "false",
            # In memory, the default, leases end with the server, and their slots stay taken for ever.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            # By default runs stay for ever, half a megabyte a night. With this they stay for 90 days.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
            # A folder that these are started from may hold a `flows` of its own.
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": os.pathsep.join(x for x in (str(ROOT), os.environ.get("PYTHONPATH")) if x),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        }

    def processes(self) -> dict[int, str]:
        """The command of every process of this server by process id: the server, its worker and their flow runs."""
        marked = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARKER}={self.folder}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    marked[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
        marked.pop(os.getpid(), None)
        return {pid: command for pid, command in marked.items() if command}

    def runs(self, what: str) -> bool:
        """Whether a process ``prefect WHAT start`` of this server is there."""
        return any(f"prefect {what} start" in command for command in self.processes().values())

    def start(self, path: Path, config: RunConfig) -> dict[str, Any]:
        """Start what does not run yet, wait until it is ready, and register everything for the run config at ``path``.

        Raises InputError where the port is taken or Prefect refuses a deployment, ClusterError where a process does not come up.
        """
        began = time.monotonic()
        if not self.runs("server"):
            self._check_port()
            self._start("server", "--host", "127.0.0.1", "--port", str(self.port))
        self._wait(lambda: prefect_answers(self.port), "server")
        os.environ.update(self.environment)
        from flows.server.register import register, worker_is_online

        registered = register(path, config)
        if not self.runs("worker"):
            self._start("worker", "--pool", POOL, "--type", "process", "--name", f"{POOL}-worker")
        self._wait(worker_is_online, "worker")
        return registered | {
            "ui": self.url,
            "folder": str(self.folder),
            "default_folder": self.folder == Path(".prefect").absolute(),
            "prefect": _command("prefect"),
            "seconds": round(time.monotonic() - began, 1),
        }

    def stop(self) -> bool:
        """End the server, its worker and their flow runs; False where none was there."""
        was_running = bool(self.processes())
        deadline = time.monotonic() + STOP_PATIENCE
        self._signal(signal.SIGTERM)
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.2)
        self._signal(signal.SIGKILL)
        return was_running

    def status(self) -> dict[str, Any]:
        """Whether the server answers and a worker of it is online."""
        if not prefect_answers(self.port):
            return {"server": False, "worker": False, "ui": None}
        os.environ.update(self.environment)
        from flows.server.register import worker_is_online

        return {"server": True, "worker": worker_is_online(), "ui": self.url}

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                raise InputError(
                    f"port {self.port} of 127.0.0.1 is not free: {error.strerror}; choose another with PORT=… (--port)"
                ) from error

    def _start(self, what: str, *options: str) -> None:
        logs = self.folder / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"{what}.log").open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "prefect", what, "start", *options],
                env={**os.environ, **self.environment},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, is_ready: Callable[[], bool], what: str) -> None:
        began = time.monotonic()
        while not is_ready():
            if time.monotonic() - began > START_PATIENCE or not self.runs(what):
                raise ClusterError(f"the {what} did not start; see {self.folder / 'logs' / f'{what}.log'}")
            time.sleep(0.3)
