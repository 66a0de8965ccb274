"""The trend beside the table, local and in S3: what is kept, what is read back, and which jumps it shows."""

from __future__ import annotations

import json
import os
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import StorageError
from tasks.table.config import PublishConfig
from tasks.table.trend import Trend, find_jumps, read_trend, record_run, trend_entry, trend_uri
from tests.support.table.publish_support import identity
from tests.support.table.trend_samples import Rate, entry, facts, gate

DAY = "2024-03-04"
STEADY: Rate = (0.10, 0.08, 0.12)


@pytest.fixture
def config(tmp_path: Path) -> PublishConfig:
    return PublishConfig(uri=str(tmp_path / "warehouse" / "features"), keep_trend=5)


def written(config: PublishConfig) -> dict[str, bytes]:
    root = Path(trend_uri(config))
    return {str(x.relative_to(root)): x.read_bytes() for x in sorted(root.rglob("*")) if x.is_file()}


def test_a_run_comes_back_as_it_was_recorded(config: PublishConfig) -> None:
    kept = entry(DAY, {"image": STEADY, "text": None})
    assert record_run(config, kept)
    assert read_trend(config).days == (kept,)
    image = kept["modalities"]["image"]
    assert (image["mismatch_rate"], image["low"], image["high"], image["drift"], image["rectified"]) == (
        0.10,
        0.08,
        0.12,
        0.97,
        80,
    )
    assert kept["modalities"]["text"]["mismatch_rate"] is None
    assert [x["name"] for x in kept["gate"]][:1] == ["image: mean column error of the plan"]
    assert list(written(config)) == [f"{DAY}/{kept['run_id']}.json"]
    # Beside the table, which may not be there yet: a publish must not find a foreign folder in its place.
    assert not Path(config.uri).exists()


def test_what_is_not_a_number_is_kept_as_none(config: PublishConfig) -> None:
    given_entry = entry(DAY, {"image": STEADY}, drift=float("nan"))
    record_run(config, given_entry)
    (found,) = read_trend(config).days
    assert found["modalities"]["image"]["drift"] is None
    assert found["gate"][-1]["value"] is None and found["gate"][-1]["passed"] is False


def test_a_repeat_changes_nothing(config: PublishConfig) -> None:
    record_run(config, entry(DAY, {"image": STEADY}))
    before = written(config)
    assert not record_run(config, entry(DAY, {"image": STEADY}, outcome="unchanged", hour=9))
    assert written(config) == before
    assert record_run(config, entry(DAY, {"image": (0.3, 0.25, 0.35)}, hour=9))
    assert read_trend(config).days[0]["modalities"]["image"]["mismatch_rate"] == 0.3


def test_a_refused_run_that_is_published_after_all(config: PublishConfig) -> None:
    record_run(config, entry(DAY, {"image": STEADY}, outcome="refused"))
    assert (read_trend(config).days[0]["outcome"], read_trend(config).days[0]["version"]) == ("refused", None)
    assert record_run(config, entry(DAY, {"image": STEADY}, hour=4))
    assert read_trend(config).days[0]["outcome"] == "published"


def test_a_day_shows_the_run_recorded_last(config: PublishConfig) -> None:
    # Before the last one the clock went back by two hours.
    for seed, hour in ((0, 5), (1, 9), (2, 7)):
        given_entry = entry(
            DAY, {"image": STEADY}, seed=seed, hour=hour, outcome="refused" if seed == 2 else "published"
        )
        record_run(config, given_entry)
        (found,) = read_trend(config).days
        assert found | {"recorded": ""} == given_entry | {"recorded": ""}
    assert found["recorded"] == entry(DAY, {}, hour=9)["recorded"].replace(".000", ".001")
    assert len(written(config)) == 3


def test_what_a_killed_run_left_in_the_trend_goes_an_hour_later(config: PublishConfig) -> None:
    left = Path(trend_uri(config)) / DAY / ".x.json.77-ab.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("{")
    record_run(config, entry(DAY, {"image": STEADY}))
    assert left.exists()
    os.utime(left, (left.stat().st_mtime - 3700,) * 2)
    record_run(config, entry(DAY, {"image": STEADY}))
    assert not left.exists() and len(read_trend(config).days) == 1


def test_days_come_oldest_first_and_no_more_than_asked_for(config: PublishConfig) -> None:
    for day in ("2024-03-03", "2024-02-28", "2024-03-01", "2024-03-02"):
        record_run(config, entry(day, {"image": STEADY}))
    assert [x["as_of"] for x in read_trend(config).days] == ["2024-02-28", "2024-03-01", "2024-03-02", "2024-03-03"]
    assert [x["as_of"] for x in read_trend(config, 2).days] == ["2024-03-02", "2024-03-03"]
    assert [x["as_of"] for x in read_trend(config, 2, until="2024-03-01").days] == ["2024-02-28", "2024-03-01"]


def test_old_days_are_dropped_with_all_their_runs(config: PublishConfig) -> None:
    days = [(date(2024, 3, 1) + timedelta(days=i)).isoformat() for i in range(8)]
    for day in days:
        for seed in (0, 1):
            record_run(config, entry(day, {"image": STEADY}, seed=seed))
    assert sorted({path.split("/")[0] for path in written(config)}) == days[-5:]
    assert sorted(x.name for x in Path(trend_uri(config)).iterdir()) == days[-5:]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"format": 1}',
        json.dumps(entry(DAY, {}) | {"format": 2}).encode(),
        json.dumps(entry(DAY, {}) | {"modalities": {"image": {}}}).encode(),
        json.dumps(entry(DAY, {}) | {"as_of": "2024-03-05"}).encode(),
    ],
)
def test_a_damaged_file_is_left_out_and_counted(config: PublishConfig, damage: bytes) -> None:
    kept = entry("2024-03-03", {"image": STEADY})
    record_run(config, kept)
    broken = entry(DAY, {"image": STEADY})
    path = Path(trend_uri(config)) / DAY / f"{broken['run_id']}.json"
    path.parent.mkdir()
    path.write_bytes(damage)
    assert read_trend(config) == Trend(days=(kept,), damaged=1)
    assert record_run(config, broken)
    assert read_trend(config) == Trend(days=(kept, broken), damaged=0)


def test_what_else_lies_there_is_let_be(config: PublishConfig) -> None:
    root = Path(trend_uri(config))
    for stray in ("notes.json", "2024-03-04/.part.json.tmp", "someday/run.json", "2024-03-04/deep/er.json"):
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_text("x")
    assert read_trend(config) == Trend(days=(), damaged=0)
    assert read_trend(PublishConfig(uri=str(root / "nowhere"))) == Trend(days=(), damaged=0)


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not hold root back")
def test_an_unwritable_place_is_one_line(config: PublishConfig) -> None:
    Path(trend_uri(config)).mkdir(parents=True, mode=0o500)
    with pytest.raises(StorageError, match="recording the run in its trend failed"):
        record_run(config, entry(DAY, {"image": STEADY}))


def test_a_file_in_the_way_is_one_line(config: PublishConfig) -> None:
    Path(trend_uri(config)).parent.mkdir(parents=True)
    Path(trend_uri(config)).write_text("in the way")
    with pytest.raises(StorageError) as caught:
        record_run(config, entry(DAY, {"image": STEADY}))
    assert "\n" not in str(caught.value) and config.uri in str(caught.value)


@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (STEADY, STEADY, None),
        (STEADY, (0.13, 0.11, 0.15), None),
        (STEADY, (0.20, 0.12, 0.24), None),
        (STEADY, (0.20, 0.16, 0.24), "rate"),
        (STEADY, (0.04, 0.02, 0.06), "rate"),
        (STEADY, None, "identifiable"),
        (None, STEADY, "identifiable"),
        (None, None, None),
    ],
)
def test_a_jump_is_beyond_both_intervals(before: Rate, now: Rate, kind: str | None) -> None:
    days = [
        entry("2024-03-01", {"image": before, "text": STEADY}),
        entry(DAY, {"image": now, "text": STEADY, "audio": STEADY}),
    ]
    jumps = find_jumps(days, DAY)
    assert [(x["modality"], x["kind"]) for x in jumps] == ([("image", kind)] if kind else [])
    if kind:
        assert not jumps[0]["among_unlike"]
        assert (jumps[0]["since"], jumps[0]["as_of"], jumps[0]["run_id"]) == ("2024-03-01", DAY, days[1]["run_id"])
        assert jumps[0]["before"] == {
            "identifiable": before is not None,
            **dict(zip(("mismatch_rate", "low", "high"), before or [None] * 3, strict=True)),
        }


@pytest.mark.parametrize(("before", "jumps"), [((0.09, 0.11), 1), ((0.09, 0.17), 0), (None, 0)])
def test_intervals_among_unlike_items_are_compared_where_both_days_have_them(
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


def test_a_jump_is_seen_against_the_last_day_that_was_published() -> None:
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


@given(rates=st.tuples(*(st.none() | st.lists(st.floats(0, 1), min_size=3, max_size=3).map(sorted),) * 2))
def test_jumps_go_both_ways(rates: tuple[list[float] | None, list[float] | None]) -> None:
    there, back = ([None if x is None else (x[1], x[0], x[2]) for x in pair] for pair in (rates, rates[::-1]))
    kinds = [
        [x["kind"] for x in find_jumps([entry("2024-03-01", {"image": a}), entry(DAY, {"image": b})], DAY)]
        for a, b in (there, back)
    ]
    assert kinds[0] == kinds[1]


def test_an_entry_holds_nothing_but_what_it_says() -> None:
    found = trend_entry(
        identity(DAY),
        "published",
        3,
        {"image": facts(STEADY) | {"secret": "hunter2"}},
        [x | {"token": "hunter2"} for x in gate(0.9, "image")],
    )
    assert "hunter2" not in json.dumps(found)
    assert date.fromisoformat(found["recorded"][:10]) >= date(2024, 1, 1)


def test_at_least_one_day_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"publish\.keep_trend"):
        PublishConfig(uri=str(tmp_path), keep_trend=0)
