"""What a backfill plans, for days in any state."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backfill.plan import REPROCESS, PlannedDay, dropped_days, exit_code, parse_reprocess, plan_days, windows
from tasks.errors import InputError
from tasks.runs.day_status import STATES, DayStatus, PublishedDay

FIRST = date(2024, 2, 20)
SHOWN = PublishedDay(version=1, run_id="r", rows=1, commit={})
states = st.lists(st.sampled_from(STATES), min_size=1, max_size=25)
chosen = st.sets(st.sampled_from(sorted(REPROCESS)), min_size=1).map(lambda names: ",".join(sorted(names)))


def days_of(names: list[str]) -> list[DayStatus]:
    return [
        DayStatus(
            day=FIRST + timedelta(days=at), state=name, why="", published=SHOWN if name in ("done", "stale") else None
        )
        for at, name in enumerate(names)
    ]


@given(states, chosen, st.booleans())
def test_every_day_is_planned_once_and_runs_if_its_state_is_chosen(
    names: list[str], asked: str, newest_first: bool
) -> None:
    days = days_of(names)
    today = days[len(days) // 2].day
    plan = plan_days(reversed(days), parse_reprocess(asked, force=False), today, newest_first=newest_first)
    assert [x.day for x in plan] == sorted((x.day for x in days), reverse=newest_first)
    for x in plan:
        asked_for = any(x.state in REPROCESS[name] for name in asked.split(","))
        assert x.run == (asked_for and x.day <= today)
        assert ("after today" in x.reason) == (x.day > today and x.state not in ("running", "no-data"))
        assert x.reason
        # A day that another run works on, or that has no data, never runs.
        assert not (x.run and x.state in ("running", "no-data"))


def test_windows_are_the_days_to_run_in_order() -> None:
    plan = plan_days(days_of(["missing", "done", "running", "stale", "no-data", "failed"]), REPROCESS["all"], date.max)
    days = [[x.day.day - FIRST.day for x in window] for window in windows(plan, 3)]
    assert days == [[0, 1, 3], [5]]


def published(shown: set[date], plan: list[PlannedDay], keep: int) -> tuple[set[date], bool]:
    """The days in the table after the plan, and whether the table refused or dropped a day of the plan."""
    lost, run = False, set[date]()
    for x in plan:
        if x.run:
            kept = set(sorted(shown | {x.day})[-keep:])
            lost |= x.day not in kept
            shown, run = kept, run | {x.day}
    return shown, lost or not run <= shown


@given(states, st.integers(1, 12), st.booleans(), st.sets(st.integers(-9, 40), max_size=9))
def test_no_day_runs_that_the_table_would_drop_and_days_that_leave_are_named(
    names: list[str], keep: int, newest_first: bool, others: set[int]
) -> None:
    days = days_of(names)
    shown = {x.day for x in days if x.published} | {FIRST + timedelta(days=x) for x in others}
    shown = set(sorted(shown)[-keep:])
    plan = plan_days(days, REPROCESS["all"] - {"done"}, date.max, newest_first=newest_first)
    after, lost = published(shown, plan, keep)
    if not lost:
        assert after == (shown | {x.day for x in plan if x.run}) - set(dropped_days(plan, shown, keep))
        return
    with pytest.raises(InputError, match=r"publish.keep_snapshots: .*; raise it to \d+ or start at") as refused:
        dropped_days(plan, shown, keep)
    # The number that the message names is enough.
    enough = int(str(refused.value).split("raise it to ")[1].split()[0])
    assert not published(shown, plan, enough)[1]
    dropped_days(plan, shown, enough)


def test_the_options_name_the_states() -> None:
    assert parse_reprocess(None, force=False) == {"missing", "dead", "failed", "refused"}
    assert (
        parse_reprocess(None, force=True) == parse_reprocess("all", force=True) == set(STATES) - {"running", "no-data"}
    )
    assert parse_reprocess("stale, missing", force=False) == {"stale", "missing", "dead"}
    with pytest.raises(
        InputError, match="--reprocess done: wanted missing, failed, stale, rolled-back, all, or several by commas"
    ):
        parse_reprocess("done", force=False)
    with pytest.raises(InputError, match="--force, --reprocess stale: give one of the two"):
        parse_reprocess("stale", force=True)


@pytest.mark.parametrize(("codes", "wanted"), [((), 0), ((0, 0), 0), ((0, 3, 3), 3), ((2, 3), 1)])
def test_one_status_for_all_days(codes: tuple[int, ...], wanted: int) -> None:
    assert exit_code(codes) == wanted
