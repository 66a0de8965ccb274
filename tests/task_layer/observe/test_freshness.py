"""When a table is late: by the day of its rows, in the zone where days end."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.observe.config import AlertsConfig
from tasks.observe.freshness import judge_freshness

DAY = date(2026, 6, 30)


@pytest.mark.parametrize(
    ("now", "late"),
    [("2026-06-30T12:00", False), ("2026-07-01T00:00", False), ("2026-07-02T05:59", False), ("2026-07-02T06:00", True)],
)
def test_a_day_has_six_hours_after_its_end_to_be_published(now: str, late: bool) -> None:
    assert judge_freshness(DAY, AlertsConfig(), datetime.fromisoformat(now).replace(tzinfo=UTC)).late is late


def test_an_empty_table_is_late() -> None:
    freshness = judge_freshness(None, AlertsConfig(), datetime(2026, 7, 1, 6, tzinfo=UTC))
    assert (freshness.late, freshness.expected_day, freshness.age_hours) == (True, DAY, None)


def test_days_end_where_the_shop_is() -> None:
    berlin = AlertsConfig(timezone="Europe/Berlin")
    assert berlin.end_of(DAY) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    # The clocks go forward on this night.
    assert berlin.end_of(date(2026, 3, 28)) == datetime(2026, 3, 28, 23, tzinfo=UTC)
    assert berlin.end_of(date(2026, 3, 29)) == datetime(2026, 3, 29, 22, tzinfo=UTC)


@given(
    hours=st.floats(24, 2000),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Los_Angeles", "Pacific/Apia"]),
    now=st.datetimes(datetime(2011, 1, 1), datetime(2040, 1, 1)),
)
def test_the_expected_day_is_the_newest_that_is_due(hours: float, zone: str, now: datetime) -> None:
    config, at = AlertsConfig(late_after_hours=hours, timezone=zone), now.replace(tzinfo=UTC)
    expected, grace = config.expected(at), timedelta(hours=hours - 24)
    assert config.end_of(expected) + grace <= at < config.end_of(expected + timedelta(days=1)) + grace
    assert not judge_freshness(expected, config, at).late
    assert judge_freshness(expected - timedelta(days=1), config, at).late
    assert not judge_freshness(expected + timedelta(days=400), config, at).late


@pytest.mark.parametrize(("key", "value"), [("late_after_hours", 23.0), ("timezone", "Mars/Olympus")])
def test_a_bad_setting_names_its_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=key):
        AlertsConfig(**{key: value})  # type: ignore[arg-type]
