"""Every new version of the table is an event, and the feature store follows: by command, with the nightly run, and back by a rollback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from feast import FeatureStore
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.observe.events import PUBLISHED, asset_key, emit_published
from tasks.table.config import PublishConfig
from tests.support.flow.flow_support import ROOT, CommandLine, Published, rows_of, table_uri
from tests.support.flow.prefect_events import wait_for_events
from tests.support.table.publish_support import make_refs, publish

ENABLED = ("--set", "feature_store.enabled=true", "--set", "feature_store.grace=0")


def served(demo: Path) -> dict[str, list[object]]:
    """What a reader of a demo's store gets of two items."""
    store = FeatureStore(str(demo / "feature_store"))
    service = store.get_feature_service("rectified_features")
    found: dict[str, list[object]] = store.get_online_features(
        service, [{"item_id": f"item-000000{x}"} for x in (1, 2)]
    ).to_dict()
    return found


def test_a_refresh_follows_the_table_there_and_back(
    published: Published, cli: CommandLine, prefect_server: str
) -> None:
    config, uri = ("--config", published.demo / "run.toml"), table_uri(published.demo)
    done = cli("refresh", *config, "--json")
    assert done.code == 0, done.err
    newest = published.results[-1]
    wanted = {
        "done": "rows",
        "version": newest["version"],
        "as_of": newest["as_of"],
        "run_id": newest["run_id"],
        "rows": newest["rows"],
    }
    assert {name: done.result[name] for name in wanted} == wanted
    rows = {x["item_id"]: x for x in rows_of(uri, newest["as_of"]).to_pylist()}
    assert served(published.demo)["image"] == [rows[f"item-000000{x}"]["image"] for x in (1, 2)]
    assert cli("refresh", *config, "--json").result["done"] == "unchanged"
    refused = cli("refresh", *config, "--version", "0")
    assert refused.code == 2
    assert "version 0 as of" in refused.error and "is older: nothing was pushed" in refused.error

    rolled = cli("rollback", *config, "--to", "1", "--json", *ENABLED)
    assert rolled.code == 0, rolled.err
    assert (rolled.result["version"], rolled.result["feature_store"]["done"]) == (3, "rows")
    assert set(served(published.demo)["text_version"]) == {3}
    (event,) = wait_for_events(prefect_server, PUBLISHED, asset_key(PublishConfig(uri=uri)))
    assert event["payload"] == {
        "as_of": published.days[1],
        "version": 3,
        "run_id": published.results[1]["run_id"],
        "rows": published.results[1]["rows"],
        "backfilled": False,
    }

    night = cli.published(published.demo, published.tomorrow, *ENABLED)
    assert (night["feature_store"]["version"], night["feature_store"]["as_of"]) == (
        night["version"],
        published.tomorrow,
    )
    assert set(served(published.demo)["image_version"]) == {4}


def test_every_night_is_an_event_and_a_backfill_says_so(
    three_days: Published, prefect_server: str, tmp_path: Path
) -> None:
    events = wait_for_events(prefect_server, PUBLISHED, asset_key(PublishConfig(uri=table_uri(three_days.demo))))
    assert sorted((x["payload"]["version"], x["payload"]["as_of"], x["payload"]["backfilled"]) for x in events) == [
        (number, day, False) for number, day in enumerate(three_days.days)
    ]
    assert all(str(three_days.demo) not in str(x["payload"]) for x in events)
    config, refs = PublishConfig(uri=str(tmp_path / "table")), make_refs(tmp_path / "stages")
    publish(config, refs, "2024-03-02")
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        emit_published(config, publish(config, refs, "2024-03-01"))
    (late,) = wait_for_events(prefect_server, PUBLISHED, asset_key(config))
    assert (late["payload"]["version"], late["payload"]["backfilled"]) == (1, True)


def test_without_a_server_none_is_started_for_an_event(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom prefect.settings import PREFECT_API_URL, temporary_settings\n"
        "from rectifier_core.base.published_records import TableVersion\nfrom tasks.table.config import PublishConfig\n"
        "from tasks.observe.events import emit_published\n"
        "published = PublishConfig(uri='/none'), TableVersion(uri='/none', version=1, as_of='2024-03-01', run_id='r', rows=1, published=True)\n"
        "emit_published(*published)\n"
        "with temporary_settings({PREFECT_API_URL: 'http://127.0.0.1:9/api'}):\n    emit_published(*published)\n"
        "assert 'prefect.server.api.server' not in sys.modules\nprint('went on')\n"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert done.stderr.count("the Prefect server at 127.0.0.1 does not answer, so it gets no events") == 1
    assert not list(tmp_path.glob("prefect.db*"))
