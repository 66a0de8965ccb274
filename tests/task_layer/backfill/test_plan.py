"""What a backfill decides before it spends anything, over days in any state."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backfill.plan import REPROCESS, PlannedDay, dropped_days, exit_code, parse_reprocess, plan_days, windows
from tasks.errors import InputError
from tasks.runs.day_status import STATES, DayStatus, Shown

FIRST = date(2024, 2, 20)
SHOWN = Shown(version=1, run_id="r", rows=1, commit={})
states = st.lists(st.sampled_from(STATES), min_size=1, max_size=25)
chosen = st.sets(st.sampled_from(sorted(REPROCESS)), min_size=1).map(lambda names: ",".join(sorted(names)))


def days_of(found: list[str]) -> list[DayStatus]:
    shown = {"done", "stale"}
    return [
        DayStatus(day=FIRST + timedelta(days=at), state=state, why="", shown=SHOWN if state in shown else None)
        for at, state in enumerate(found)
    ]


@given(states, chosen, st.booleans())
def test_every_day_is_planned_once_and_run_if_it_was_asked_for(
    found: list[str], asked: str, newest_first: bool
) -> None:
    days = days_of(found)
    plan = plan_days(reversed(days), parse_reprocess(asked, force=False), newest_first=newest_first)
    assert [x.day for x in plan] == sorted((x.day for x in days), reverse=newest_first)
    for x in plan:
        named = any(x.state in REPROCESS[name] for name in asked.split(","))
        assert x.run == named
        assert x.reason
        # Nobody's running day is taken from them, and a day without data never costs a run.
        assert not (x.run and x.state in ("running", "no-data"))
    assert {x.state for x in plan_days(days, parse_reprocess("failed", force=False)) if x.run} <= {
        "failed",
        "refused",
        "dead",
    }


@given(states, st.integers(1, 4))
def test_windows_are_the_days_to_run_in_order(found: list[str], parallel: int) -> None:
    plan = plan_days(days_of(found), REPROCESS["all"])
    chosen = windows(plan, parallel)
    assert [x for window in chosen for x in window] == [x for x in plan if x.run]
    assert all(len(x) == parallel for x in chosen[:-1])
    assert all(1 <= len(x) <= parallel for x in chosen)


def published(shown: set[date], plan: list[PlannedDay], keep: int) -> tuple[set[date], bool]:
    """What the table shows after the plan, by its own rule a day; and whether it ever refused a day or dropped one that was run."""
    lost, run = False, set[date]()
    for x in plan:
        if x.run:
            kept = set(sorted(shown | {x.day})[-keep:])
            lost |= x.day not in kept
            shown, run = kept, run | {x.day}
    return shown, lost or not run <= shown


@given(states, st.integers(1, 12), st.booleans(), st.sets(st.integers(-9, 40), max_size=9))
def test_no_day_is_run_that_the_table_would_refuse_or_drop_and_what_goes_is_named(
    found: list[str], keep: int, newest_first: bool, others: set[int]
) -> None:
    days = days_of(found)
    shown = {x.day for x in days if x.shown} | {FIRST + timedelta(days=x) for x in others}
    shown = set(sorted(shown)[-keep:])
    plan = plan_days(days, REPROCESS["all"] - {"done"}, newest_first=newest_first)
    after, lost = published(shown, plan, keep)
    if lost:
        with pytest.raises(
            InputError, match=r"publish.keep_snapshots: the table keeps .*; raise it to \d+ or start at"
        ) as refused:
            dropped_days(plan, shown, keep)
        # The way out that it names is one.
        wanted = int(str(refused.value).split("raise it to ")[1].split()[0])
        assert not published(shown, plan, wanted)[1]
        dropped_days(plan, shown, wanted)
    else:
        assert after == (shown | {x.day for x in plan if x.run}) - set(dropped_days(plan, shown, keep))


def test_what_is_asked_for_in_words() -> None:
    assert parse_reprocess(None, force=False) == {"missing", "dead", "failed", "refused"}
    assert (
        parse_reprocess(None, force=True) == parse_reprocess("all", force=True) == set(STATES) - {"running", "no-data"}
    )
    assert parse_reprocess("stale, missing", force=False) == {"stale", "missing", "dead"}
    with pytest.raises(InputError, match="--reprocess done: wanted missing, failed, stale, all, or several by commas"):
        parse_reprocess("done", force=False)
    with pytest.raises(InputError, match="--force, --reprocess stale: give one of the two"):
        parse_reprocess("stale", force=True)


@pytest.mark.parametrize(
    ("codes", "wanted"), [((), 0), ((0, 0), 0), ((0, 3, 3), 3), ((2, 3), 1), ((1, 0), 1), ((4,), 4)]
)
def test_one_status_for_all_days(codes: tuple[int, ...], wanted: int) -> None:
    assert exit_code(codes) == wanted
