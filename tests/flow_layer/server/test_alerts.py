"""Every alert of ``deployments/automations.yaml`` fires in a real Prefect server on what the pipeline itself sends, and on nothing else."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.events import emit_event
from prefect.events.schemas.automations import AutomationCore
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.steps import asset_key
from tasks.observe.events import FAILED, LATE, REFUSED
from tasks.observe.trend_events import JUMPED, emit_jumps
from tasks.table.config import PublishConfig
from tasks.table.trend import find_jumps
from tests.support.flow.flow_support import ROOT, CommandLine, Published, ask_prefect, table_uri
from tests.support.table.trend_samples import entry

PUBLISHED = "catalog-rectifier.table.published"
STARTED = "2000-01-01T00:00:00Z"
DAYS = [entry("2024-03-01", {"image": (0.1, 0.08, 0.12)}), entry("2024-03-02", {"image": (0.3, 0.27, 0.33)})]


def alerts() -> dict[str, dict[str, Any]]:
    """The automations that tell someone, by name."""
    found = yaml.safe_load((ROOT / "deployments" / "automations.yaml").read_text())["automations"]
    return {x["name"].removeprefix("catalog-rectifier: "): x for x in found if "alert" in x}


def create(url: str, name: str, asset: str, **trigger: Any) -> str:
    """One of the alerts in the server, for the events of one table only; its id."""
    given = alerts()[name]
    match = {**given["trigger"]["match"], "prefect.resource.id": asset}
    core = {
        "name": f"{name} {asset}",
        "trigger": {**given["trigger"], "match": match, **trigger},
        "actions": [{"type": "do-nothing"}],
    }
    body = AutomationCore.model_validate(core).model_dump_json().encode()
    request = urllib.request.Request(f"{url}/automations/", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])


def events(url: str, prefix: str, resource: str, wait: float = 40.0) -> list[dict[str, Any]]:
    """Events of that name and resource, waited for."""
    question = {
        "filter": {"event": {"prefix": [prefix]}, "resource": {"id": [resource]}, "occurred": {"since": STARTED}}
    }
    end = time.monotonic() + wait
    while True:
        found: list[dict[str, Any]] = ask_prefect(url, "events", question)["events"]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def fired(url: str, automation: str, wait: float = 40.0) -> bool:
    """Whether an automation was triggered."""
    return bool(events(url, "prefect.automation.triggered", f"prefect.automation.{automation}", wait))


def test_every_alert_has_its_place_in_the_runbook() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    expected = {event for x in alerts().values() for event in x["trigger"]["expect"]}
    assert expected >= {FAILED, REFUSED, LATE, JUMPED, PUBLISHED}
    for name in alerts():
        assert name in runbook


@pytest.mark.slow
def test_a_refused_and_a_failed_night_and_a_late_day_are_alerts(
    published: Published, cli: CommandLine, prefect_server: str
) -> None:
    demo, day, asset = published.demo, published.tomorrow, asset_key(PublishConfig(uri=table_uri(published.demo)))
    names = {REFUSED: "the gate refused a night", FAILED: "a night failed", LATE: "a day is late"}
    made = {event: create(prefect_server, name, asset) for event, name in names.items()}
    refused = cli.rectify(demo, day, "--set", "quality.max_marginal_error=0.0")
    assert refused.code == 3
    (told,) = events(prefect_server, REFUSED, asset)
    facts, resource = told["payload"], told["resource"]
    assert (facts["as_of"], facts["exit_code"], facts["stage"]) == (day, 3, "report")
    assert "error: " + facts["message"] == refused.error and facts["run_id"].startswith(day.replace("-", ""))
    assert (resource["catalog-rectifier.exit-code"], resource["catalog-rectifier.as-of"]) == ("3", day)
    assert fired(prefect_server, made[REFUSED])
    assert not fired(prefect_server, made[FAILED], wait=0)
    failed = cli.rectify(demo, day, "--set", "source.item_column='nowhere'")
    assert failed.code == 2
    (told,) = events(prefect_server, FAILED, asset)
    assert (told["payload"]["exit_code"], "error: " + told["payload"]["message"]) == (2, failed.error)
    assert fired(prefect_server, made[FAILED])
    late = cli("freshness", "--config", demo / "run.toml")
    assert late.code == 1
    (told,) = events(prefect_server, LATE, asset)
    assert told["payload"]["newest_day"] == published.days[-1] and "error: " + told["payload"]["message"] == late.error
    assert fired(prefect_server, made[LATE])


def test_a_config_that_cannot_be_read_is_an_alert_too(tmp_path: Path, cli: CommandLine, prefect_server: str) -> None:
    missing = tmp_path / "run.toml"
    made = create(prefect_server, "a night failed", f"file://{missing}")
    failed = cli("rectify", "--config", missing, "--as-of", "2026-06-30")
    assert failed.code == 2
    (told,) = events(prefect_server, FAILED, f"file://{missing}")
    assert ("error: " + told["payload"]["message"], told["payload"]["as_of"]) == (failed.error, "2026-06-30")
    assert fired(prefect_server, made)


def test_a_jump_is_an_alert(prefect_server: str) -> None:
    asset = asset_key(PublishConfig(uri="s3://alerts/features"))
    made = create(prefect_server, "a mismatch rate jumped", asset)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        emit_jumps(asset, find_jumps(DAYS, "2024-03-02"))
        EventsWorker.drain_all()
    assert fired(prefect_server, made)


def published_event(url: str, asset: str, backfilled: bool) -> None:
    """What is sent when the table has a new version."""
    labels = {"prefect.resource.id": asset, "catalog-rectifier.backfilled": str(backfilled).lower()}
    with temporary_settings({PREFECT_API_URL: url}):
        emit_event(event=PUBLISHED, resource=labels, payload={"backfilled": backfilled})
        EventsWorker.drain_all()


@pytest.mark.slow
def test_silence_is_an_alert_and_a_backfill_does_not_break_it(prefect_server: str) -> None:
    name, silent, kept = "no day was published for 26 hours", *(f"s3://silence/{x}" for x in ("silent", "kept"))
    made = {asset: create(prefect_server, name, asset, within=15) for asset in (silent, kept)}
    end = time.monotonic() + 60
    for asset in made:
        published_event(prefect_server, asset, backfilled=False)
    while time.monotonic() < end and not fired(prefect_server, made[silent], wait=0):
        published_event(prefect_server, kept, backfilled=False)
        published_event(prefect_server, silent, backfilled=True)
        time.sleep(1)
    assert fired(prefect_server, made[silent], wait=0)
    assert not fired(prefect_server, made[kept], wait=0)


def test_the_times_of_the_alerts_are_those_that_the_docs_say() -> None:
    trigger = alerts()["no day was published for 26 hours"]["trigger"]
    assert trigger["within"] == 26 * 3600 and trigger["posture"] == "Proactive"
    assert Path(ROOT / "docs" / "runbook.md").is_file()
