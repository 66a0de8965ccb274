"""What deployments take, the day that a night is about, and what automations go by."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.flows import Flow
from prefect.states import State

from flows.server import deployments as deployed
from tests.support.flow.flow_support import ROOT

FLOWS = {name: getattr(deployed, name) for name in ("nightly", "backfill", "refresh", "freshness", "audit", "evaluate")}
AUTOMATIONS = {
    x["name"]: x for x in yaml.safe_load((ROOT / "flows" / "server" / "automations.yaml").read_text())["automations"]
}


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("nightly", {"as_of": "2026-02-30"}, "nightly: as_of: "),
        ("nightly", {"as_of": 7.5}, "nightly: as_of: "),
        ("nightly", {"timezone": "Mars/Olympus"}, "nightly: timezone: 'Mars/Olympus' is no IANA time zone"),
        ("nightly", {"timezone": "../../etc/passwd"}, "nightly: timezone: "),
        ("nightly", {"overrides": "a.b=1"}, "nightly: overrides: "),
        ("nightly", {"config": ""}, "nightly: config: "),
        ("nightly", {"config": "nowhere.toml"}, "nowhere.toml: the config cannot be read"),
        ("backfill", {"start": "2026-06-01"}, "backfill: end: missing"),
        ("backfill", {"start": "2026-06-01", "end": "2026-06-02", "parallel": 0}, "backfill: parallel: "),
        ("backfill", {"start": "2026-06-01", "end": "2026-06-02", "reprocess": "some"}, "--reprocess some: wanted"),
        ("refresh", {"version": -1}, "refresh: version: "),
        ("refresh", {"older": "maybe"}, "refresh: older: "),
        ("freshness", {"within": 0}, "freshness: within: "),
        ("audit", {"fdr": 0.1, "top": 3}, "--fdr, --top: give one of the two"),
        ("audit", {"fdr": 2}, "--fdr 2.0: wanted a share"),
        ("evaluate", {"seeds": 0}, "evaluate: seeds: "),
        ("evaluate", {"corruption": "much"}, "--corruption much: wanted"),
    ],
)
def test_a_wrong_parameter_is_a_state_that_names_it(
    tiny_demo: Path, name: str, given: dict[str, Any], said: str
) -> None:
    state = FLOWS[name].fn(**({"config": str(tiny_demo / "run.toml")} | given))
    assert isinstance(state, State)
    assert (state.type.value, state.name) == ("FAILED", "BadInput")
    assert state.message is not None
    assert state.message.startswith(said)
    assert "\n" not in state.message


@pytest.mark.parametrize(
    ("scheduled", "timezone", "day"),
    [
        ("2026-07-01T02:30:00+00:00", "UTC", "2026-06-30"),
        ("2026-07-01T23:30:00+00:00", "Europe/Berlin", "2026-07-01"),
        ("2026-07-01T02:30:00+00:00", "America/New_York", "2026-06-29"),
    ],
)
def test_a_night_is_about_the_day_before_it_was_scheduled_however_late_it_starts(
    monkeypatch: pytest.MonkeyPatch, scheduled: str, timezone: str, day: str
) -> None:
    monkeypatch.setattr(deployed.flow_run, "scheduled_start_time", datetime.fromisoformat(scheduled), raising=False)
    assert str(deployed._yesterday(timezone)) == day


def test_every_entry_is_deployed_and_says_what_it_takes() -> None:
    deployments = yaml.safe_load((ROOT / "flows" / "server" / "prefect.yaml").read_text())["deployments"]
    assert {x["name"]: x["entrypoint"] for x in deployments} == {
        name: f"flows.server.deployments.{name}" for name in FLOWS
    }
    for x in deployments:
        takes = FLOWS[x["name"]].parameters.properties
        assert set(x["parameters"]) <= set(takes)
        assert all(values.get("description") for values in takes.values()), x["name"]


def test_dead_runs_are_looked_for_among_all_flows_and_every_end_counts_as_one() -> None:
    import flows.audit
    import flows.backfill
    import flows.compare
    import flows.evaluate
    import flows.steps.feature_store

    modules = [deployed, flows.audit, flows.backfill, flows.compare, flows.evaluate]
    modules.append(flows.steps.feature_store)
    ours = {x.name for module in modules for x in vars(module).values() if isinstance(x, Flow)}
    trigger = AUTOMATIONS["catalog-rectifier: find dead runs"]["trigger"]
    assert set(trigger["match_related"]["prefect.resource.name"]) == ours
    ends = {"Completed", "Failed", "Cancelled", "Crashed", "Overdue", *deployed.ENDINGS.values()}
    assert set(trigger["expect"]) == {"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{x}" for x in ends)}
