"""How a day is judged from its entry, its lease, the table and what a run would be made from now."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tasks.runs.day_status import PublishedDay, judge_day, stale_reasons

CATALOG, LOG = ({"digest": name, "files": 1, "bytes": 9, "newest": "2024-03-02T00:00:00+00:00"} for name in ("c", "l"))
NOW: dict[str, Any] = {
    "code": "0.1+aa",
    "config": {"seed": "1", "trust": "2"},
    "inputs": {"catalog": CATALOG, "log": LOG},
}
SHOWN = PublishedDay(version=3, run_id="r", rows=9, commit={})
SEEN = "2024-03-02T03:04:05"
PROCESS = {"stage": "sinkhorn/image", "heartbeat": f"{SEEN}.678+00:00", "pid": 77}
ENTRY = {"state": "done", "run_id": "r", "version": 3, "exit_code": 0, "message": None, **PROCESS}
WENT_WRONG = {"exit_code": 3, "message": "the gate refused"}


@pytest.mark.parametrize(
    ("changed", "held", "shown", "data", "wanted"),
    [
        ({}, False, SHOWN, True, ("done", "")),
        (None, False, None, True, ("missing", "never run")),
        (None, False, None, False, ("no-data", "no data of its own")),
        ({}, False, None, True, ("missing", "was version 3; beyond publish.keep_snapshots")),
        ({"state": "running"}, True, SHOWN, True, ("running", f"at sinkhorn/image since {SEEN} UTC, pid 77")),
        ({"state": "running"}, False, SHOWN, True, ("dead", f"killed at sinkhorn/image, last sign of life {SEEN} UTC")),
        ({"state": "refused"} | WENT_WRONG, False, SHOWN, True, ("refused", "exit 3: the gate refused")),
        ({"state": "failed"} | WENT_WRONG, False, None, True, ("failed", "exit 3: the gate refused")),
        # The process that holds the day has not written its entry yet.
        ({"state": "failed"} | WENT_WRONG, True, SHOWN, True, ("running", "it starts")),
        (None, True, None, True, ("running", "it starts")),
    ],
)
def test_every_state_and_why(
    changed: dict[str, Any] | None, held: bool, shown: PublishedDay | None, data: bool, wanted: tuple[str, str]
) -> None:
    entry = None if changed is None else ENTRY | changed
    assert judge_day(entry, held=held, published=shown, made=NOW if shown else {}, now=NOW, data=data) == wanted


def test_a_day_that_a_rollback_took_out_says_so() -> None:
    judged = judge_day(ENTRY, held=False, published=None, made={}, now=NOW, data=True, rolled_back=7)
    assert judged == ("rolled-back", "was version 3; taken out by the rollback of version 7")


@pytest.mark.parametrize(
    ("operation", "state"),
    [("OPTIMIZE of another tool in version 4", "done"), ("DELETE of another tool in version 4", "stale")],
)
def test_what_another_tool_did_to_the_files_is_said(operation: str, state: str) -> None:
    shown = replace(SHOWN, rewritten=operation)
    assert judge_day(ENTRY, held=False, published=shown, made=NOW, now=NOW, data=True) == (state, operation)


@pytest.mark.parametrize(
    ("made", "wanted"),
    [
        ({}, []),
        ({"code": "0.1+bb0123456789"}, ["code changed: 0.1+bb012345, 0.1+aa now"]),
        ({"config": {"seed": "1", "trust": "3", "gone": "4"}}, ["config changed: gone, trust"]),
        ({"inputs": None}, []),
        ({"inputs": {"catalog": CATALOG, "log": LOG | {"digest": "x", "files": 7}}}, ["log changed: 7 files, 1 now"]),
        (
            {"inputs": {"catalog": CATALOG | {"digest": "x"}, "log": LOG}},
            ["catalog changed: written 2024-03-02T00:00:00+00:00"],
        ),
    ],
)
def test_a_stale_day_names_what_changed_and_ignores_what_was_not_recorded(
    made: dict[str, Any], wanted: list[str]
) -> None:
    assert stale_reasons(NOW | made, NOW) == wanted
    if wanted:
        judged = judge_day(ENTRY, held=False, published=SHOWN, made=NOW | made, now=NOW, data=True)
        assert judged == ("stale", wanted[0])
    assert stale_reasons(NOW, NOW | {"inputs": None}) == ["its inputs are gone"]
