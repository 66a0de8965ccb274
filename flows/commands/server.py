"""``python -m flows server``: a Prefect server and a worker on this machine, with everything registered; and their end."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.shared import AsJson, Debug, run_command, set_prefect_defaults
from flows.server.supervisor import RECORD, is_healthy
from tasks.errors import ClusterError, InputError

ROOT = Path(__file__).parents[2]
READY_PATIENCE, SUPERVISOR_PATIENCE, STOP_PATIENCE = 300.0, 30.0, 60.0

Folder = Annotated[Path, typer.Option("--folder", help="Where the server keeps its database, settings and logs.")]
Config = Annotated[Path, typer.Option("--config", help="The run config that the deployments take by default.")]

server = typer.Typer(
    no_args_is_help=True, help="A Prefect server and a worker on this machine, with every deployment registered."
)


@server.command()
def start(
    config: Config,
    folder: Folder = Path(".prefect"),
    port: Annotated[int, typer.Option("--port", help="Of the server, on 127.0.0.1.", min=1, max=65535)] = 4200,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Start both, wait until they are ready, register; where they run already, register anew."""

    def work() -> dict[str, Any]:
        from flows.config.run_config import RunConfig

        settings = RunConfig.from_toml(config)
        began, home = time.monotonic(), folder.absolute()
        running = _running(home)
        if running is None:
            _start(home, port)
        elif running["port"] != port:
            raise InputError(
                f"--port {port}: a server with its data in {home} runs at port {running['port']}; stop it first"
            )
        os.environ.update(server_environment(home, port))
        from flows.server.registry import register, worker_is_online

        _wait_for(lambda: is_healthy(port), "server", home)
        found = register(config.absolute(), settings)
        _wait_for(worker_is_online, "worker", home)
        return found | {
            "ui": f"http://127.0.0.1:{port}",
            "folder": str(home),
            "seconds": round(time.monotonic() - began, 1),
        }

    run_command(work, as_json, debug, _told_start)


@server.command()
def stop(folder: Folder = Path(".prefect"), as_json: AsJson = False, debug: Debug = False) -> None:
    """End both. A run at work is cut off; it is taken over when the server is back."""

    def work() -> dict[str, Any]:
        return {"stopped": _stop(folder.absolute())}

    run_command(work, as_json, debug, lambda found: "stopped" if found["stopped"] else f"nothing runs in {folder}")


@server.command()
def status(folder: Folder = Path(".prefect"), as_json: AsJson = False, debug: Debug = False) -> None:
    """Say whether the server and a worker are up."""

    def work() -> dict[str, Any]:
        home = folder.absolute()
        running = _running(home)
        if running is None:
            return {"supervisor": None, "server": False, "worker": False, "ui": None}
        os.environ.update(server_environment(home, running["port"]))
        healthy = is_healthy(running["port"])
        from flows.server.registry import worker_is_online

        ui = f"http://127.0.0.1:{running['port']}"
        return {"supervisor": running["pid"], "server": healthy, "worker": healthy and worker_is_online(), "ui": ui}

    def told(found: dict[str, Any]) -> str:
        if found["supervisor"] is None:
            return f"nothing runs in {folder}"
        return (
            f"server {'up' if found['server'] else 'down'}, worker {'up' if found['worker'] else 'down'}: {found['ui']}"
        )

    run_command(work, as_json, debug, told)


@server.command()
def register(config: Config, as_json: AsJson = False, debug: Debug = False) -> None:
    """Register everything with the server that PREFECT_API_URL names, wherever that runs."""

    def work() -> dict[str, Any]:
        set_prefect_defaults()
        from flows.config.run_config import RunConfig
        from flows.server.registry import register as register_all

        return register_all(config.absolute(), RunConfig.from_toml(config))

    run_command(work, as_json, debug, lambda found: f"registered {', '.join(found['deployments'])}")


@server.command(hidden=True)
def supervise(folder: Folder, port: Annotated[int, typer.Option("--port")]) -> None:
    """Be the process that keeps both up."""
    from flows.server.supervisor import supervise as keep_up

    keep_up(folder, port)


def server_environment(folder: Path, port: int) -> dict[str, str]:
    """What the server, the worker and whoever asks them have in their environment."""
    from flows.commands.shared import PREFECT_DEFAULTS

    url = f"http://127.0.0.1:{port}"
    own = {
        "PREFECT_HOME": str(folder),
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_UI_URL": url,
        "PREFECT_LOGGING_COLORS": "false",
        # In memory, the default, leases die with the server, and their slots with them for ever.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # By default runs stay for ever, half a megabyte a night; so, for 90 days.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # The worker finds the code as Python does, and Python as the shell does.
        "PYTHONPATH": os.pathsep.join(x for x in (str(ROOT), os.environ.get("PYTHONPATH")) if x),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
    }
    return PREFECT_DEFAULTS | own


def _start(folder: Path, port: int) -> None:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                f"port {port} of 127.0.0.1 cannot be had: {error.strerror}; say PORT=… (--port)"
            ) from error
    command = [sys.executable, "-m", "flows", "server", "supervise", "--folder", str(folder), "--port", str(port)]
    with (folder / "logs" / "supervisor.log").open("ab") as log:
        environment = {**os.environ, **server_environment(folder, port)}
        subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, start_new_session=True
        )


def _running(folder: Path) -> dict[str, int] | None:
    """What the supervisor of ``folder`` says of itself, None where none lives: then nobody holds the lock on its record."""
    try:
        handle = os.open(folder / RECORD, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            found: dict[str, int] = json.loads(os.pread(handle, 4096, 0))
        except ValueError:
            return None
        return found
    finally:
        os.close(handle)
    return None


def _stop(folder: Path) -> bool:
    running = _running(folder)
    if running is None:
        return False
    try:
        handle = os.pidfd_open(running["pid"])
    except ProcessLookupError:
        return False
    try:
        # Held still, by the one that the handle was opened for: it can be no other process that got its number.
        if _running(folder) != running:
            return False
        signal.pidfd_send_signal(handle, signal.SIGTERM)
        if not select.select([handle], [], [], STOP_PATIENCE)[0]:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], STOP_PATIENCE)
    finally:
        os.close(handle)
    return True


def _wait_for(is_ready: Callable[[], bool], what: str, folder: Path) -> None:
    began = time.monotonic()
    while not is_ready():
        waited = time.monotonic() - began
        if waited > READY_PATIENCE or (waited > SUPERVISOR_PATIENCE and _running(folder) is None):
            raise ClusterError(f"the {what} did not come up after {waited:.0f} s; {folder / 'logs'} says why")
        time.sleep(0.3)


def _told_start(found: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"Prefect is ready after {found['seconds']} s: {found['ui']}",
            f"  deployments: {', '.join(found['deployments'])}; data and logs in {found['folder']}",
            "  run the night now:    prefect deployment run rectify/nightly -p as_of=YYYY-MM-DD",
            f"  from any shell, after: export PREFECT_API_URL={found['ui']}/api",
            "  end it:               make stop",
        ]
    )
