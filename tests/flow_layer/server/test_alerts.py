"""Every alert of ``flows/server/automations.yaml`` fires in a real Prefect server on the pipeline's own events, and on nothing else."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.schemas.automations import AutomationCore
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.observe.events import FAILED, JUMPED, LATE, PUBLISHED, REFUSED, asset_key, emit_jumps
from tasks.table.config import PublishConfig
from tasks.table.trend import find_jumps
from tests.support.flow.flow_support import ROOT, CommandLine, Published, table_uri
from tests.support.flow.prefect_events import wait_for_events
from tests.support.table.trend_samples import entry

DAYS = [entry("2024-03-01", {"image": (0.1, 0.08, 0.12)}), entry("2024-03-02", {"image": (0.3, 0.27, 0.33)})]


def alerts() -> dict[str, dict[str, Any]]:
    """The automations that alert someone, by name."""
    automations = yaml.safe_load((ROOT / "flows" / "server" / "automations.yaml").read_text())["automations"]
    return {x["name"].removeprefix("catalog-rectifier: "): x for x in automations if "alert" in x}


def create(url: str, name: str, asset: str, **trigger: Any) -> str:
    """Create one of the alerts in the server, for the events of one table only; return its id."""
    alert = alerts()[name]
    match = {**alert["trigger"]["match"], "prefect.resource.id": asset}
    core = {
        "name": f"{name} {asset}",
        "trigger": {**alert["trigger"], "match": match, **trigger},
        "actions": [{"type": "do-nothing"}],
    }
    with temporary_settings({PREFECT_API_URL: url}), get_client(sync_client=True) as client:
        return str(client.create_automation(AutomationCore.model_validate(core)))


def fired(url: str, automation: str, wait: float = 40.0) -> bool:
    return bool(wait_for_events(url, "prefect.automation.triggered", f"prefect.automation.{automation}", wait))


def test_the_runbook_names_every_alert() -> None:
    runbook = (ROOT / "docs" / "runbook.md").read_text()
    assert {event for x in alerts().values() for event in x["trigger"]["expect"]} >= {
        *(FAILED, REFUSED, LATE, JUMPED, PUBLISHED)
    }
    assert all(name in runbook for name in alerts())


@pytest.mark.slow
def test_a_refused_and_a_failed_night_and_a_late_day_are_alerts(
    published: Published, cli: CommandLine, prefect_server: str
) -> None:
    demo, day, asset = published.demo, published.tomorrow, asset_key(PublishConfig(uri=table_uri(published.demo)))
    names = {REFUSED: "the gate refused a night", FAILED: "a night failed", LATE: "a day is late"}
    made = {event: create(prefect_server, name, asset) for event, name in names.items()}
    commands = {
        REFUSED: (3, lambda: cli.rectify(demo, day, "--set", "quality.max_marginal_error=0.0")),
        FAILED: (2, lambda: cli.rectify(demo, day, "--set", "source.item_column='nowhere'")),
        LATE: (1, lambda: cli("freshness", "--config", demo / "run.toml")),
    }
    payloads = {}
    for event, (code, run) in commands.items():
        assert not fired(prefect_server, made[event], wait=0)
        finished = run()
        assert finished.code == code
        (sent,) = wait_for_events(prefect_server, event, asset)
        payloads[event] = sent["payload"]
        assert (sent["payload"]["exit_code"], f"error: {sent['payload']['message']}") == (code, finished.error)
        assert sent["resource"]["catalog-rectifier.exit-code"] == str(code)
        assert fired(prefect_server, made[event])
    assert (payloads[REFUSED]["as_of"], payloads[REFUSED]["stage"]) == (day, "report")
    assert payloads[REFUSED]["run_id"].startswith(day.replace("-", ""))
    assert payloads[LATE]["newest_day"] == published.days[-1]


@pytest.mark.slow
def test_a_config_that_cannot_be_read_is_an_alert(tmp_path: Any, cli: CommandLine, prefect_server: str) -> None:
    missing = tmp_path / "run.toml"
    made = create(prefect_server, "a night failed", f"file://{missing}")
    failed = cli("rectify", "--config", missing, "--as-of", "2026-06-30")
    assert failed.code == 2
    (sent,) = wait_for_events(prefect_server, FAILED, f"file://{missing}")
    assert ("error: " + sent["payload"]["message"], sent["payload"]["as_of"]) == (failed.error, "2026-06-30")
    assert fired(prefect_server, made)


def test_a_jump_is_an_alert(prefect_server: str) -> None:
    asset, jumps = asset_key(PublishConfig(uri="s3://alerts/features")), find_jumps(DAYS, "2024-03-02")
    made = create(prefect_server, "a mismatch rate jumped", asset)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        emit_jumps(asset, jumps)
        EventsWorker.drain_all()
    assert fired(prefect_server, made)
    (sent,) = wait_for_events(prefect_server, JUMPED, asset)
    assert sent["payload"] == jumps[0]
    assert sent["resource"]["catalog-rectifier.modality"] == "image"


def test_without_a_server_a_jump_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    # Nothing listens on the discard port.
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        emit_jumps("s3://b/t", find_jumps(DAYS, "2024-03-02"))
    assert "mismatch rate of image jumped since 2024-03-01: 0.100 [0.080, 0.120] -> 0.300 [0.270, 0.330]" in caplog.text


def send_published(url: str, asset: str, backfilled: bool) -> None:
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
        send_published(prefect_server, asset, backfilled=False)
    while time.monotonic() < end and not fired(prefect_server, made[silent], wait=0):
        send_published(prefect_server, kept, backfilled=False)
        send_published(prefect_server, silent, backfilled=True)
        time.sleep(1)
    assert fired(prefect_server, made[silent], wait=0)
    assert not fired(prefect_server, made[kept], wait=0)
