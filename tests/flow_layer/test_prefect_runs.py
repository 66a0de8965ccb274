"""What Prefect is left with after a run, in a server and without one, and which tasks it may try again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.assets import Asset
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed

from flows.config.run_config import RunConfig
from flows.steps import matching, night
from flows.steps.options import is_transient
from tasks.demo.tables import LAST_DAY
from tasks.errors import GateRefusedError, InputError, StorageError, TableHeldError
from tasks.object_store import StorageUnreachableError
from tasks.observe.events import asset_key
from tasks.table.config import PublishConfig
from tests.support.flow.flow_support import ROOT, CommandLine, Published, ask_prefect, rows_of, table_uri

STARTED = "2000-01-01T00:00:00Z"


def flow_run_of(url: str, result: dict[str, Any]) -> str:
    """The flow run whose artifact names this result's report; other tests run the same days in the same server."""
    artifacts = ask_prefect(url, "artifacts", {"artifacts": {"key": {"any_": ["rectify-catalog"]}}})
    (found,) = [x for x in artifacts if f"`{result['report']}`" in x["data"]]
    return str(found["flow_run_id"])


def test_a_server_shows_the_day_the_stages_and_what_was_found(three_days: Published, prefect_server: str) -> None:
    result, day = three_days.results[1], three_days.days[1]
    flow_run_id = flow_run_of(prefect_server, result)
    (flow_run,) = ask_prefect(prefect_server, "flow_runs", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
    assert (flow_run["name"], flow_run["state"]["type"]) == (f"rectify {day}", "COMPLETED")
    task_runs = ask_prefect(prefect_server, "task_runs", {"flow_runs": {"id": {"any_": [flow_run_id]}}})
    names = {x["name"] for x in task_runs}
    parts = ("find copies in", "project", "affinity of", "sinkhorn of")
    named = {f"read as of {day}", f"publish {day}", "project text onto image"}
    assert names >= named | {f"{part} {m}" for part in parts for m in ("image", "text")}
    assert names >= {"train anchors", "trust", "rectify", "quality gate", "keep the trend", "write the report"}
    assert {x["state"]["type"] for x in task_runs} == {"COMPLETED"}
    artifacts = ask_prefect(prefect_server, "artifacts", {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}})
    found = {x["key"]: x for x in artifacts}
    markdown = found["rectify-catalog"]
    assert markdown["type"] == "markdown"
    assert f"# {day}: published, version {result['version']}" in markdown["data"]
    assert "- passed: rows in = rows out + quarantined: 402, equal to 402" in markdown["data"]
    modalities = {x["modality"]: x for x in json.loads(found["rectify-catalog-modalities"]["data"])}
    assert modalities["text"]["rectified"] == result["modalities"]["text"]["rectified"]
    stages = [x["stage"] for x in json.loads(found["rectify-catalog-stages"]["data"])]
    assert set(stages) == set(result["stages"])


def test_the_table_is_one_asset(three_days: Published, prefect_server: str) -> None:
    key = asset_key(PublishConfig(uri=table_uri(three_days.demo)))
    assert key == f"file://{table_uri(three_days.demo)}"
    question = {
        "filter": {
            "event": {"prefix": ["prefect.asset.materialization.succeeded"]},
            "resource": {"id": [key]},
            "occurred": {"since": STARTED},
        }
    }
    end = time.monotonic() + 30
    while True:
        events = ask_prefect(prefect_server, "events", question)["events"]
        if len(events) >= 3 or time.monotonic() > end:
            break
        time.sleep(0.2)
    payloads = sorted((x["payload"] for x in events), key=lambda x: x["version"])
    assert payloads == [{name: x[name] for name in ("version", "rows", "run_id", "as_of")} for x in three_days.results]


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("/data/with space/it's", "file:///data/with=20space/it=27s"),
        ("s3://bucket/items", "s3://bucket/items"),
    ],
)
def test_asset_keys_are_the_tables_uri_as_prefect_takes_it(uri: str, key: str) -> None:
    assert asset_key(PublishConfig(uri=uri)) == key == Asset(key=key).key


def test_only_what_touches_storage_is_tried_again() -> None:
    compute = (night.anchors, night.rectify, night.report, matching.project, matching.balance, matching.estimate_trust)
    assert [x.retries for x in (night.read, night.check_quality)] == [2, 2]
    assert {x.retries for x in compute} == {0}
    assert not any(x.persist_result for x in (night.read, night.check_quality, *compute))


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (StorageUnreachableError("the object store did not answer"), True),
        (OSError(5, "Input/output error"), True),
        (InputError("no such column"), False),
        (TableHeldError("another run holds it"), False),
        (StorageError("no space"), False),
        (GateRefusedError("refused"), False),
        (ValueError("a bug"), False),
    ],
)
def test_which_failures_are_tried_again(error: Exception, again: bool) -> None:
    assert is_transient(None, None, Failed(data=error)) is again


@pytest.mark.parametrize(
    ("catalog", "attempts"), [pytest.param("s3://bucket/catalog", 3, marks=pytest.mark.slow), ("nowhere", 1)]
)
def test_a_store_that_does_not_answer_is_asked_again(
    demo: Path, prefect_server: str, monkeypatch: pytest.MonkeyPatch, catalog: str, attempts: int
) -> None:
    # Nothing listens on the discard port.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    config = RunConfig.from_toml(demo / "run.toml", [f"source.catalog='{catalog}'"])

    @flow(name="only-read", retries=0)
    def only_read() -> None:
        night.read.with_options(retry_delay_seconds=0)(config.source, LAST_DAY, config.run.store)

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        state = only_read(return_state=True)
    with pytest.raises(InputError):
        state.result()
    question = {"flow_runs": {"id": {"any_": [str(state.state_details.flow_run_id)]}}}
    (task_run,) = ask_prefect(prefect_server, "task_runs", question)
    assert task_run["run_count"] == attempts


def without_server(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a command that knows of no Prefect server; ``folder`` gets Prefect's home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return kept | {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(folder / "home"), **more}


def rectify_command(demo: Path, *more: str, python: Sequence[str] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "flows", "rectify", "--config", str(demo / "run.toml"), *more]


def within_a_minute(true: Callable[[], bool]) -> bool:
    """Whether ``true`` comes true in time."""
    end = time.monotonic() + 60
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_a_run_needs_no_server(demo: Path, one_day: Published, tmp_path: Path) -> None:
    day = one_day.days[0]
    command = rectify_command(demo, "--as-of", day, "--verbose", "--json", python=("-X", "importtime"))
    environment = without_server(tmp_path, HOME=str(tmp_path / "user"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "View at" not in done.stderr
    # Each takes a second or two to load, and this night has no feature store, shadow, compiler or server of its own.
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "torch" in loaded and not {"feast", "scipy.stats", "torch._dynamo", "prefect.server.api.server"} & loaded
    assert json.loads(done.stdout.splitlines()[-1])["run_id"] == one_day.results[0]["run_id"]
    assert rows_of(table_uri(demo), day).equals(rows_of(table_uri(one_day.demo), day))
    # Nothing is written but the configured paths, Prefect's home and cache folders.
    written = {x.relative_to(tmp_path).parts[0] for x in tmp_path.rglob("*") if x.is_file()}
    assert written - {"user"} == {"demo", "home"}
    assert {x.relative_to(tmp_path / "user").parts[0] for x in (tmp_path / "user").rglob("*") if x.is_file()} <= {
        ".cache",
        ".config",
    }


def test_a_server_that_cannot_start_is_one_line(demo: Path, tmp_path: Path) -> None:
    database = f"sqlite+aiosqlite:///{tmp_path}/nowhere/prefect.db"
    environment = without_server(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=database)
    command = rectify_command(demo, "--quiet")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the temporary Prefect server ended with status 3; prefect server start shows why")


def test_a_killed_run_takes_its_server_along(demo: Path, tmp_path: Path) -> None:
    with subprocess.Popen(rectify_command(demo, "--quiet"), env=without_server(tmp_path), cwd=tmp_path) as run:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        assert within_a_minute((tmp_path / "home" / "prefect.db").exists)
        (server,) = children.read_text().split()
        run.kill()
    state = Path(f"/proc/{server}/stat")
    assert within_a_minute(lambda: not state.exists() or " Z " in state.read_text())


def test_a_flow_that_is_tried_in_a_server_keeps_its_exit_status(
    published: Published, cli: CommandLine, prefect_server: str
) -> None:
    finished = cli.rectify(published.demo, published.tomorrow, "--set", "quality.max_marginal_error=0.0")
    assert finished.code == 3
    report = finished.error.split("; see ")[1]
    artifacts = ask_prefect(prefect_server, "artifacts", {"artifacts": {"key": {"any_": ["rectify-catalog"]}}})
    (found,) = [x for x in artifacts if f"`{report}`" in x["data"]]
    assert f"# {published.tomorrow}: refused, nothing" in found["data"]
    assert "**FAILED**: image: mean column error" in found["data"]
    (flow_run,) = ask_prefect(prefect_server, "flow_runs", {"flow_runs": {"id": {"any_": [found["flow_run_id"]]}}})
    assert flow_run["state"]["type"] == "FAILED"
