"""The report on the last days: rates, drift, gate values and jumps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.report_samples import GATE, NASTY, Run, trend, written
from tests.support.table.trend_samples import entry


def test_the_page_shows_the_days_and_the_jump(tmp_path: Path) -> None:
    days = trend(10)
    page, twin, text = written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=days, trend_damaged=2))
    found = twin["trend"]
    assert [x["as_of"] for x in found["days"]] == [x["as_of"] for x in days]
    assert [x["this"] for x in found["days"]] == [False] * 9 + [True]
    assert [x["outcome"] for x in found["days"]].count("refused") == 1
    image, words = found["modalities"]
    assert (image["name"], words["name"]) == ("image", "text")
    assert image["mismatch_rate"] == pytest.approx([x["modalities"]["image"]["mismatch_rate"] for x in days], rel=1e-5)
    assert words["mismatch_rate"] == [None] * 5 + [0.05] * 5
    assert words["identifiable"] == [False] * 5 + [True] * 5
    assert image["drift"][0] is None and image["drift"][-1] == pytest.approx(
        days[-1]["modalities"]["image"]["drift"], rel=1e-5
    )
    (jump,) = found["jumps"]
    assert (jump["modality"], jump["since"], jump["kind"]) == ("image", "1998-04-21", "rate")
    assert "The last 10 days 1 jump" in text and "The gate refused 1 of 10 days." in text
    assert "2 days could not be read and are left out." in text
    assert "The two intervals, of swaps between unlike items, do not overlap." in text
    assert "5 of 10 days have a rate; the separation (AUC) of the last day is 0.9." in text
    assert "; jump since 1998-04-21: about " in twin["summaries"][0]["wrong"]
    assert "jump" not in twin["summaries"][1]["wrong"]
    assert all(f"url(#{name}-" in page for name in ("t0-rate", "t0-drift", "t1-rate", "t1-drift"))


def test_a_new_embedding_model_is_named(tmp_path: Path) -> None:
    runs = [("a@1", "published"), (NASTY, "refused"), ("b@2", "published"), (None, "published"), ("b@2", "published")]
    days = tuple(
        entry(f"1998-04-{18 + at}", {"image": (0.1, 0.08, 0.12)}, model=model, outcome=outcome)
        for at, (model, outcome) in enumerate(runs)
    )
    quality = replace(GATE, notes=(f"image: made by {NASTY} since this day",))
    inputs = replace(Run(tmp_path).inputs(), trend=days, quality=quality, embedding_models={"image": NASTY})
    page, twin, text = written(tmp_path / "out", inputs)
    assert NASTY not in page
    assert [x["embedding_model"] for x in twin["modalities"]] == [NASTY, None]
    assert twin["trend"]["modalities"][0]["models"] == [
        {"model": "a@1", "since": "1998-04-18"},
        {"model": "b@2", "since": "1998-04-20"},
    ]
    assert twin["quality"]["notes"] == [f"image: made by {NASTY} since this day"]
    assert (
        f"image: made by {NASTY} since this day." in text
        and "Embedding model: b@2 since 1998-04-20, a@1 before" in text
    )


def test_gate_values_over_the_days(tmp_path: Path) -> None:
    days = trend(10, jump=False)
    _, twin, text = written(tmp_path / "out", replace(Run(tmp_path).inputs(()), trend=days))
    checks = {x["name"]: x for x in twin["trend"]["gate"]}
    drift, plan = (
        checks["image: mean cosine to the last published version"],
        checks["image: mean column error of the plan"],
    )
    values = [x["modalities"]["image"]["drift"] for x in days]
    assert drift["values"][0] is None and drift["values"][1:] == pytest.approx(values[1:], rel=1e-5)
    assert (drift["least"], drift["most"]) == pytest.approx((min(values[1:]), max(values[1:])), rel=1e-5)
    assert (drift["failed"], plan["failed"]) == ({"count": 0, "of": 9}, {"count": 1, "of": 10})
    assert "image: mean column error of the plan 0.01 at most 0.05 0.01 0.01 1 of 10" in text
    assert "On 1998-04-22 no rate has left the interval of the last published day." in text


@pytest.mark.parametrize(
    ("days", "shown"),
    [(0, "No trend yet: there is no earlier run of this table."), (1, "There is only 1998-04-22 so far.")],
)
def test_without_an_earlier_day_there_is_no_trend(tmp_path: Path, days: int, shown: str) -> None:
    page, twin, text = written(tmp_path / "out", replace(Run(tmp_path).inputs(()), trend=trend(days)))
    assert len(twin["trend"]["days"]) == days
    assert shown in text and "Gate values" not in text and "t0-rate" not in page


def test_only_the_last_days_are_shown(tmp_path: Path) -> None:
    many = tuple(entry(x["as_of"], {"image": (0.1, 0.05, 0.15)}) for x in trend(90))
    _, twin, _ = written(tmp_path / "out", replace(Run(tmp_path).inputs(()), trend=many))
    assert [x["as_of"] for x in twin["trend"]["days"]] == [x["as_of"] for x in many[-60:]]
