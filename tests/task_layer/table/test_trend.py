"""The trend beside the table: what is kept, what is read back, and which jumps of a rate it shows."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta
from pathlib import Path

import pytest

from tasks.table.config import PublishConfig
from tasks.table.trend import FORMAT, Trend, find_jumps, rate_jumps, read_trend, record_run, trend_entry, trend_uri
from tests.support.table.publish_support import identity
from tests.support.table.trend_samples import Rate, entry, facts, gate

DAY = "2024-03-04"
STEADY: Rate = (0.10, 0.08, 0.12)


def files_of(config: PublishConfig) -> dict[str, bytes]:
    root = Path(trend_uri(config))
    return {str(x.relative_to(root)): x.read_bytes() for x in sorted(root.rglob("*")) if x.is_file()}


def test_a_run_comes_back_as_it_was_recorded(config: PublishConfig) -> None:
    recorded = entry(DAY, {"image": STEADY, "text": None})
    assert record_run(config, recorded)
    assert read_trend(config).days == (recorded,)
    image = recorded["modalities"]["image"]
    wanted = {"mismatch_rate": 0.10, "low": 0.08, "high": 0.12, "drift": 0.97, "rectified": 80}
    assert wanted.items() <= image.items()
    assert recorded["modalities"]["text"]["mismatch_rate"] is None
    assert list(files_of(config)) == [f"{DAY}.json"]
    # The trend is beside the table, which may not exist yet: a publish must not find a foreign folder in its place.
    assert not Path(config.uri).exists()


def test_only_known_keys_are_kept_and_nan_becomes_none(config: PublishConfig) -> None:
    modalities = {"image": facts(STEADY) | {"secret": "hunter2"}}
    checks = [x | {"token": "hunter2"} for x in gate(float("nan"), "image")]
    record_run(config, trend_entry(identity(DAY), "published", 3, modalities, checks))
    (recorded,) = read_trend(config).days
    assert recorded["modalities"]["image"]["drift"] is None and recorded["gate"][-1]["value"] is None
    assert "hunter2" not in json.dumps(recorded)


def test_a_day_shows_its_last_run_and_a_repeat_writes_nothing(config: PublishConfig) -> None:
    for seed, outcome in ((0, "refused"), (0, "published"), (1, "published"), (0, "published"), (2, "refused")):
        last = entry(DAY, {"image": STEADY}, seed=seed, outcome=outcome)
        assert record_run(config, last)
        assert read_trend(config).days == (last,)
    record_run(config, entry(DAY, {"image": STEADY}))
    before = files_of(config)
    assert not record_run(config, entry(DAY, {"image": STEADY}, outcome="unchanged"))
    assert files_of(config) == before


def test_files_of_a_killed_run_are_deleted_an_hour_later(config: PublishConfig) -> None:
    left = Path(trend_uri(config)) / f".{DAY}.json.77-ab.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("{")
    record_run(config, entry(DAY, {"image": STEADY}))
    assert left.exists()
    os.utime(left, (left.stat().st_mtime - 3700,) * 2)
    record_run(config, entry(DAY, {"image": STEADY}))
    assert list(files_of(config)) == [f"{DAY}.json"]


def test_days_come_oldest_first_and_the_oldest_are_dropped(config: PublishConfig) -> None:
    days = [(date(2024, 2, 27) + timedelta(days=i)).isoformat() for i in range(7)]
    for day in (days[1], days[0], *days[2:]):
        record_run(config, entry(day, {"image": STEADY}))
    assert [x["as_of"] for x in read_trend(config).days] == days[-5:]
    assert list(files_of(config)) == [f"{day}.json" for day in days[-5:]]
    assert [x["as_of"] for x in read_trend(config, 2).days] == days[-2:]
    assert [x["as_of"] for x in read_trend(config, 2, until=days[4]).days] == days[3:5]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"\xff\xfe", b"[]", json.dumps(entry(DAY, {}) | {"format": FORMAT + 1}).encode()],
)
def test_a_damaged_file_is_left_out_and_counted(config: PublishConfig, damage: bytes) -> None:
    kept, broken = entry("2024-03-03", {"image": STEADY}), entry(DAY, {"image": STEADY})
    record_run(config, kept)
    (Path(trend_uri(config)) / f"{DAY}.json").write_bytes(damage)
    assert read_trend(config) == Trend(days=(kept,), damaged=1)
    assert record_run(config, broken)
    assert read_trend(config) == Trend(days=(kept, broken), damaged=0)


def test_other_files_are_left_alone(config: PublishConfig) -> None:
    root = Path(trend_uri(config))
    assert read_trend(config) == Trend(days=(), damaged=0)
    for stray in ("notes.json", ".2024-03-04.json.tmp", "someday/run.json"):
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_text("x")
    assert read_trend(config) == Trend(days=(), damaged=0)


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (STEADY, STEADY, None),
        (STEADY, (0.20, 0.12, 0.24), None),
        (STEADY, (0.20, 0.16, 0.24), "rate"),
        (STEADY, (0.04, 0.02, 0.06), "rate"),
        (STEADY, None, "identifiable"),
        (None, STEADY, "identifiable"),
        (None, None, None),
    ],
)
def test_a_jump_is_beyond_both_intervals(before: Rate, now: Rate, kind: str | None) -> None:
    earlier = entry("2024-03-01", {"image": before, "text": STEADY})
    today = entry(DAY, {"image": now, "text": STEADY, "audio": STEADY})
    jumps = find_jumps([earlier, today], DAY)
    assert [(x["modality"], x["kind"]) for x in jumps] == ([("image", kind)] if kind else [])
    if kind:
        rate = dict(zip(("mismatch_rate", "low", "high"), before or [None] * 3, strict=True))
        wanted = {"since": "2024-03-01", "as_of": DAY, "run_id": today["run_id"], "among_unlike": False}
        assert wanted.items() <= jumps[0].items()
        assert jumps[0]["before"] == {"identifiable": before is not None, **rate}


@pytest.mark.parametrize(("before", "jumps"), [((0.09, 0.11), 1), ((0.09, 0.17), 0), (None, 0)])
def test_intervals_among_unlike_items_are_compared_if_both_days_have_them(
    before: tuple[float, float] | None, jumps: int
) -> None:
    days = [
        entry("2024-03-01", {"image": (0.10, 0.05, 0.40)}, inner=before),
        entry(DAY, {"image": (0.20, 0.15, 0.50)}, inner=(0.16, 0.24)),
    ]
    found = find_jumps(days, DAY)
    assert len(found) == jumps
    if found:
        assert found[0]["among_unlike"]
        assert [(found[0][when]["low"], found[0][when]["high"]) for when in ("before", "now")] == [before, (0.16, 0.24)]


def test_a_rate_is_compared_with_the_last_day_that_was_published(config: PublishConfig) -> None:
    jumped: Rate = (0.3, 0.28, 0.32)
    days = [
        entry("2024-03-01", {"image": (0.5, 0.45, 0.55)}),
        entry("2024-03-02", {"image": STEADY}),
        entry("2024-03-03", {"image": jumped}, outcome="refused"),
        entry(DAY, {"image": jumped}, outcome="refused"),
        entry("2024-03-05", {"image": (0.9, 0.85, 0.95)}),
    ]
    (jump,) = find_jumps(days, DAY)
    assert (jump["since"], jump["now"]["mismatch_rate"]) == ("2024-03-02", 0.3)
    assert find_jumps(days[:1], "2024-03-01") == find_jumps(days, "2024-04-01") == find_jumps([], DAY) == []
    for x in days:
        record_run(config, x)
    assert rise(config, jumped) == pytest.approx(0.16)


def rise(config: PublishConfig, rate: Rate, inner: tuple[float, float] | None = None) -> float | None:
    return rate_jumps(config, date.fromisoformat(DAY), {"image": facts(rate, inner)})["image"]


def test_a_rise_is_the_gap_between_the_intervals(config: PublishConfig) -> None:
    assert rise(config, (0.30, 0.27, 0.33)) is None
    record_run(config, entry("2024-03-03", {"image": None, "text": STEADY}))
    assert rise(config, (0.30, 0.27, 0.33)) is None
    record_run(config, entry("2024-03-03", {"image": STEADY}, inner=(0.09, 0.11)))
    assert rise(config, (0.30, 0.27, 0.33)) == pytest.approx(0.15)
    assert rise(config, (0.13, 0.11, 0.15)) == pytest.approx(-0.01)
    assert rise(config, (0.01, 0.0, 0.02)) == pytest.approx(-0.12)
    assert rise(config, (0.30, 0.20, 0.60), inner=(0.27, 0.33)) == pytest.approx(0.16)
    assert rise(config, None) is None


@pytest.mark.parametrize(("model", "compared"), [("a", True), ("b", False), (None, True)])
def test_rates_of_two_embedding_models_are_not_compared(
    config: PublishConfig, model: str | None, compared: bool
) -> None:
    before = entry("2024-03-03", {"image": STEADY}, model=model)
    record_run(config, before)
    now = facts((0.30, 0.27, 0.33)) | {"embedding_model": "a"}
    wanted = pytest.approx(0.15) if compared else None
    assert rate_jumps(config, date.fromisoformat(DAY), {"image": now})["image"] == wanted
    assert len(find_jumps([before, entry(DAY, {"image": (0.30, 0.27, 0.33)}, model="a")], DAY)) == compared
