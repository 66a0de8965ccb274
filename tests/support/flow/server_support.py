"""For tests of ``catalog-rectifier server``: one with its data in a folder whose name has a blank, and what its runs come to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.flow.flow_support import ROOT, ask_prefect

# A start takes a dozen seconds, and ten times as long where other work has the cores.
PATIENCE = 600.0
ENDS = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def free_port() -> int:
    """A port of this machine that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A server that may or may not run; everything of it lies in ``folder``."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """``catalog-rectifier server ARGUMENTS --folder FOLDER --json`` to its end."""
        options = ["--folder", str(self.folder), "--json"]
        command = [sys.executable, "-m", "flows", "server", *map(str, arguments), *options]
        paths = os.pathsep.join(x for x in (str(ROOT), os.environ.get("PYTHONPATH")) if x)
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=PATIENCE
        )

    def start(self, config: Path) -> dict[str, Any]:
        """Start it and give what the command says."""
        done = self.command("start", "--config", config, "--port", str(self.port))
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--port", str(self.port))
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def processes(self) -> dict[str, int]:
        """The process ids of the server, its worker and a flow run, by a word of their command."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words, environment = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
            except OSError:
                continue
            if f"RECTIFIER_SERVER={self.folder}\0".encode() in environment:
                for name, word in {
                    "server": b"prefect\0server",
                    "worker": b"worker\0start",
                    "run": b"start_run",
                }.items():
                    if word in words:
                        found[name] = int(path.name)
        return found

    def kill(self, *names: str) -> None:
        """kill -9 of these processes."""
        found = self.processes()
        for name in names:
            os.kill(found[name], signal.SIGKILL)

    def ask(self, what: str, question: dict[str, Any]) -> Any:
        """What it answers to a filter; again while it is not there."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return ask_prefect(self.url, what, question)
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def run(self, deployment: str, **parameters: Any) -> str:
        """Ask for a run of a deployment; its id."""
        (found,) = self.ask("deployments", {"deployments": {"name": {"any_": [deployment]}}})
        body = json.dumps(
            {"parameters": parameters, "state": {"type": "SCHEDULED"}, "idempotency_key": str(uuid.uuid4())}
        ).encode()
        url, end = f"{self.url}/deployments/{found['id']}/create_flow_run", time.monotonic() + PATIENCE
        while True:
            try:
                with urllib.request.urlopen(
                    urllib.request.Request(url, body, {"content-type": "application/json"}), timeout=60
                ) as answer:
                    return str(json.load(answer)["id"])
            except urllib.error.HTTPError as error:
                # A server whose SQLite is busy says so, and Prefect's own client asks again.
                if error.code != 503 or time.monotonic() > end:
                    raise
                time.sleep(1)

    def look(self, run_id: str) -> dict[str, Any]:
        (found,) = self.ask("flow_runs", {"flow_runs": {"id": {"any_": [run_id]}}})
        return dict(found)

    def ended(self, run_id: str, patience: float = PATIENCE) -> dict[str, Any]:
        """The flow run when it has ended; fails when that takes too long."""
        end = time.monotonic() + patience
        while (found := self.look(run_id))["state"]["type"] not in ENDS:
            assert time.monotonic() < end, found["state"]
            time.sleep(0.5)
        return found

    def wait_until_running(self, run_id: str) -> None:
        """Until its process is at work on a stage."""
        end = time.monotonic() + PATIENCE
        while self.look(run_id)["state"]["type"] != "RUNNING" or "run" not in self.processes():
            assert time.monotonic() < end, self.look(run_id)["state"]
            time.sleep(0.3)
