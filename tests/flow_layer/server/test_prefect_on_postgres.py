"""Prefect's server on a real Postgres, set up as docker/compose.yaml does. Runs are reported before and after Postgres was killed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.support.flow.flow_support import ROOT, Published, ask_prefect, serve_prefect

pytestmark = pytest.mark.slow
PASSWORD = "not-the-one-of-anything"


class Postgres:
    """A cluster in a folder of its own, run by a user who is not root, for no server of Postgres runs as root."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._tools, self._data = tools, folder / "data"
        self._user = "postgres" if os.geteuid() == 0 else None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        password = folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            for path in (folder, password):
                shutil.chown(path, self._user)
        self._run(
            "initdb",
            "--username",
            "prefect",
            "--auth",
            "scram-sha-256",
            "--pwfile",
            str(password),
            "--encoding",
            "UTF8",
        )
        with (self._data / "postgresql.conf").open("a") as stream:
            stream.write(f"port = {self.port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\n")

    def control(self, *arguments: str) -> None:
        self._run("pg_ctl", "--wait", "--timeout", "120", "--log", str(self._data / "log"), *arguments)

    def create(self, name: str) -> None:
        create = [
            str(self._tools / "createdb"),
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--username",
            "prefect",
            name,
        ]
        subprocess.run(create, env={**os.environ, "PGPASSWORD": PASSWORD}, check=True, timeout=120)

    def _run(self, tool: str, *arguments: str) -> None:
        command = [str(self._tools / tool), "--pgdata", str(self._data), *arguments]
        subprocess.run(command, user=self._user, cwd="/", check=True, timeout=180, stdout=subprocess.DEVNULL)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A Postgres for the block; the test is skipped where there is none to run."""
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(x) for x in [shutil.which("initdb")] if x]
    if not tools:
        pytest.skip("Postgres is not installed")
    if os.geteuid() == 0 and "postgres" not in {x.pw_name for x in pwd.getpwall()}:
        pytest.skip("there is no user postgres to run it as")
    # Not below pytest's folders, which only the user who runs the tests may enter.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        postgres = Postgres(Path(folder), tools[-1].parent)
        postgres.control("start")
        try:
            yield postgres
        finally:
            postgres.control("stop", "--mode", "immediate")


def database_of_compose(postgres: Postgres) -> dict[str, str]:
    """The database settings of docker/compose.yaml, with the address of this Postgres."""
    server = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["server"]
    variables = {
        name: value for name, value in server["environment"].items() if name.startswith("PREFECT_SERVER_DATABASE_")
    }
    password = {x["target"]: PASSWORD for x in server["secrets"]}
    return {
        **variables,
        "PREFECT_SERVER_DATABASE_HOST": "127.0.0.1",
        "PREFECT_SERVER_DATABASE_PORT": str(postgres.port),
        **password,
    }


def rectify(demo: Path, day: str, url: str) -> None:
    """Run a day in a process without the settings of the Postgres database."""
    command = [sys.executable, "-m", "flows", "rectify", "--config", str(demo / "run.toml"), "--as-of", day]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_SERVER_DATABASE_")}
    done = subprocess.run(
        command, env={**kept, "PREFECT_API_URL": url}, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def completed(url: str) -> set[str]:
    """The names of the flow runs that the server holds as completed."""
    found = ask_prefect(url, "flow_runs", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    return {x["name"] for x in found}


def test_runs_are_kept_in_postgres_and_outlive_its_death(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_postgres() as postgres:
        environment = database_of_compose(postgres)
        postgres.create(environment["PREFECT_SERVER_DATABASE_NAME"])
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        home = tmp_path / "home"
        home.mkdir()
        with serve_prefect(home) as url:
            rectify(published.demo, published.tomorrow, url)
            assert completed(url) == {f"rectify {published.tomorrow}"}
            postgres.control("restart", "--mode", "immediate")
            rectify(published.demo, published.days[0], url)
            assert completed(url) == {f"rectify {x}" for x in (published.tomorrow, published.days[0])}
        # Nothing was kept beside the database, and the password is in no log.
        assert not list(home.rglob("*.db"))
        assert PASSWORD not in (home / "server.log").read_text()
