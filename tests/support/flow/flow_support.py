"""For tests of whole runs: the command line as processes, a Prefect server and its API, tiny demos, and the rows that were published."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from deltalake import DeltaTable

from tests.support.flow import cli_process
from tests.support.flow.cli_process import Death
from tests.support.fork_server import fork_context

ROOT = Path(__file__).parents[3]
PATIENCE = 180.0
SHORT = "\n[anchors]\nepochs = 2\nembedding_size = 16\n\n[trust]\nresamples = 20\n"


class Published(NamedTuple):
    """A demo with three days published, and the day after them; copy the folder before running anything in it again."""

    demo: Path
    days: list[str]
    results: list[dict[str, Any]]
    tomorrow: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A command line that ended: its exit status (negative: the signal that killed it) and its output."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        """The last line on standard output, which is one JSON object."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found

    @property
    def error(self) -> str:
        """The one line for the user; fails unless there is exactly one, and no traceback anywhere."""
        assert "Traceback" not in self.out + self.err, self.err
        lines = [x for x in self.err.splitlines() if x.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0]


@dataclass(frozen=True, slots=True)
class Running:
    """A command line that may still be at work."""

    process: ForkServerProcess
    out: Path
    err: Path

    def wait(self) -> Finished:
        """Its end; fails when it takes too long."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {PATIENCE:g} s: {self.err.read_text()}")
        return Finished(self.process.exitcode, *(x.read_text() if x.exists() else "" for x in (self.out, self.err)))


class CommandLine:
    """``catalog-rectifier`` as processes that start quickly: forks of one that has imported everything."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._count = folder, 0
        self._context = fork_context()
        self.environment = {**environment, "PYTHONPATH": str(ROOT)}

    def start(
        self,
        *arguments: str | Path,
        environment: dict[str, str] | None = None,
        death: Death | None = None,
        file_bytes: int | None = None,
    ) -> Running:
        """Start ``catalog-rectifier ARGUMENTS``."""
        self._count += 1
        out, err = self._folder / f"{self._count}.out", self._folder / f"{self._count}.err"
        changed = {**self.environment, **(environment or {})}
        given = ([str(x) for x in arguments], changed, str(out), str(err), death, file_bytes)
        process = self._context.Process(target=cli_process.run, args=given)
        process.start()
        return Running(process, out, err)

    def __call__(self, *arguments: str | Path, **options: Any) -> Finished:
        """Run ``catalog-rectifier ARGUMENTS`` to its end."""
        return self.start(*arguments, **options).wait()

    def rectify(self, demo: Path, day: str, *more: str, **options: Any) -> Finished:
        """``rectify --json`` of one day of a demo."""
        return self("rectify", "--config", demo / "run.toml", "--as-of", day, "--json", *more, **options)

    def published(self, demo: Path, day: str, *more: str, **options: Any) -> dict[str, Any]:
        """The result of such a run, which has to end well."""
        finished = self.rectify(demo, day, *more, **options)
        assert finished.code == 0, finished.err
        return finished.result


def write_tiny_demo(folder: Path) -> Path:
    """A demo that a run takes seconds for."""
    from tasks.demo.catalog import DemoConfig, write_demo

    write_demo(folder, DemoConfig(items=400, users=640, interactions=10_000, days=10))
    with (folder / "run.toml").open("a") as stream:
        stream.write(SHORT)
    return folder


def last_days(count: int) -> list[str]:
    """The last days of a demo's log, oldest first."""
    from tasks.demo.tables import LAST_DAY

    return [(LAST_DAY - timedelta(days=back)).isoformat() for back in reversed(range(count))]


def table_uri(demo: Path) -> str:
    """The table that a demo's config publishes to."""
    return str(demo / "warehouse" / "item_features")


def rows_of(uri: str, day: str, **options: Any) -> pa.Table:
    """All columns of one published day, by item id."""
    found = DeltaTable(uri, **options).to_pyarrow_table(filters=[("as_of", "=", date.fromisoformat(day))])
    return found.sort_by("item_id").combine_chunks()


def days_of(uri: str) -> list[str]:
    """The days that a table shows, none where there is no table."""
    if not DeltaTable.is_deltatable(uri):
        return []
    return sorted({str(x["as_of"]) for x in DeltaTable(uri).partitions()})


@contextmanager
def serve_prefect(home: Path) -> Iterator[str]:
    """A Prefect server for the block; yields the url of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    command = [sys.executable, "-m", "prefect", "server", "start", *options]
    environment = {**os.environ, "PREFECT_HOME": str(home)}
    with (
        (home / "server.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as server,
    ):
        try:
            url = f"http://127.0.0.1:{port}/api"
            _wait_for(url, server, home / "server.log")
            yield url
        finally:
            server.terminate()
            try:
                server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the Prefect server did not come up: {log.read_text()}")


def ask_prefect(url: str, what: str, question: dict[str, Any]) -> Any:
    """What the Prefect server answers to a POST of ``question`` to ``/WHAT/filter``."""
    request = urllib.request.Request(
        f"{url}/{what}/filter", json.dumps(question).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def move_to_s3(demo: Path, client: Any) -> str:
    """Put a demo's catalog and log into a new bucket, let its config read them there and publish there; returns the table's uri."""
    client.create_bucket(Bucket="lake")
    text = (demo / "run.toml").read_text()
    for name in ("catalog", "interactions", "warehouse/item_features"):
        for path in sorted((demo / name).rglob("*.parquet")):
            client.upload_file(str(path), "lake", f"shop/{path.relative_to(demo)}")
        text = text.replace(f'"{name}"', f'"s3://lake/shop/{name}"')
    (demo / "run.toml").write_text(text)
    return "s3://lake/shop/warehouse/item_features"
