"""The report on the last runs: what the page and its twin say of rates, drift, gate values and jumps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.report.figures import sparkline
from tasks.report.inputs import ReportInputs
from tasks.report.page import render_page
from tasks.report.render import MAX_BYTES, write_report
from tests.support.report_samples import GATE, NASTY, PageText, Run, trend
from tests.support.table.trend_samples import Rate, entry


def _written(folder: Path, inputs: ReportInputs) -> tuple[str, dict[str, Any], str]:
    page = write_report(folder, inputs).read_text()
    return page, json.loads((folder / "report.json").read_text()), PageText(page).text.replace("\u00a0", " ")


def test_the_page_shows_the_days_and_the_jump(tmp_path: Path) -> None:
    days = trend(10)
    page, twin, text = _written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=days, trend_damaged=2))
    assert render_page(twin) == page
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
    assert "The last 10 days 1 jump" in text
    assert "The gate refused 1 of 10." in text
    assert "2 files of the trend could not be read and are left out." in text
    assert "The two intervals, for mix-ups among unlike items, have nothing in common." in text
    assert "A rate can be told on 5 of 10 days; own pairs against re-paired ones now have an AUC of 0.9." in text
    assert "; a jump since 1998-04-21: about " in twin["summaries"][0]["text"]
    assert "jump" not in twin["summaries"][1]["text"]
    assert {x for x in ("t0-rate", "t0-drift", "t1-rate", "t1-drift") if f"url(#{x}-" in page} == {
        "t0-rate",
        "t0-drift",
        "t1-rate",
        "t1-drift",
    }


def test_the_embedding_model_is_named_and_its_change_told(tmp_path: Path) -> None:
    told = [("a@1", "published"), (NASTY, "refused"), ("b@2", "published"), (None, "published"), ("b@2", "published")]
    days = tuple(
        entry(f"1998-04-{18 + at}", {"image": (0.1, 0.08, 0.12)}, model=model, outcome=outcome)
        for at, (model, outcome) in enumerate(told)
    )
    quality = replace(GATE, notes=(f"image: made by {NASTY} since this day",))
    inputs = replace(Run(tmp_path).inputs(), trend=days, quality=quality, embedding_models={"image": NASTY})
    page, twin, text = _written(tmp_path / "out", inputs)
    assert render_page(twin) == page and NASTY not in page
    assert [x["embedding_model"] for x in twin["modalities"]] == [NASTY, None]
    assert twin["trend"]["modalities"][0]["models"] == [
        {"model": "a@1", "since": "1998-04-18"},
        {"model": "b@2", "since": "1998-04-20"},
    ]
    assert twin["quality"]["notes"] == [f"image: made by {NASTY} since this day"]
    assert f"image: made by {NASTY} since this day." in text and "Made by b@2 since 1998-04-20, by a@1 before" in text


def test_gate_values_over_the_days(tmp_path: Path) -> None:
    days = trend(10, jump=False)
    _, twin, text = _written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=days))
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
    assert "No rate on 1998-04-22 lies beyond its interval of the last published day." in text


def test_without_a_trend(tmp_path: Path) -> None:
    _, twin, text = _written(tmp_path / "out", Run(tmp_path).inputs())
    assert twin["trend"] == {"days": [], "modalities": [], "gate": [], "jumps": [], "damaged": 0}
    assert "No trend yet: no run of this table is on record." in text


def test_the_first_day_is_no_trend_yet(tmp_path: Path) -> None:
    page, twin, text = _written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=trend(1)))
    assert "Only 1998-04-22 is on record." in text
    assert "Gate values" not in text
    assert "t0-rate" not in page
    assert len(twin["trend"]["days"]) == 1


def test_days_without_anything_to_draw_and_a_rate_by_itself(tmp_path: Path) -> None:
    rates: list[dict[str, Rate]] = [
        {"image": None, "text": None},
        {"image": (0.2, 0.15, 0.25), "text": None},
        {"image": None, "text": None},
    ]
    days = tuple(entry(f"1998-04-2{i}", found, drift=None) for i, found in enumerate(rates))
    page, _, text = _written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=days))
    assert text.count("Nothing to draw: there was no earlier version to compare with.") == 2
    assert text.count("Nothing to draw: on no day can a rate be told.") == 1
    assert "A rate can be told on 1 of 3 days" in text
    assert "url(#t0-rate-" in page


def test_only_the_last_days_are_shown_and_the_page_stays_small(tmp_path: Path) -> None:
    many = trend(90)
    rates = {f"modality {i}": (0.1, 0.05, 0.15) for i in range(18)}
    wide = tuple(entry(x["as_of"], rates) for x in many)
    page, twin, _ = _written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=wide))
    assert len(twin["trend"]["days"]) == 60
    assert len(twin["trend"]["modalities"]) == 18
    assert len(page.encode()) < MAX_BYTES


def test_a_modality_that_comes_and_goes(tmp_path: Path) -> None:
    rate = (0.1, 0.05, 0.15)
    days = (
        entry("1998-04-20", {"audio": rate}),
        entry("1998-04-21", {}),
        entry("1998-04-22", {"audio": rate, "image": rate}),
    )
    _, twin, _ = _written(tmp_path / "out", replace(Run(tmp_path).inputs(), trend=days))
    assert [(x["name"], x["identifiable"]) for x in twin["trend"]["modalities"]] == [
        ("audio", [True, None, True]),
        ("image", [None, None, True]),
    ]


@pytest.mark.parametrize("values", [[0.5], [None, 0.5, None], [1.0, 1.0], [0.0, None, 2.0]])
def test_sparklines_stay_in_their_cell(values: list[float | None]) -> None:
    drawn = sparkline(values)
    numbers = [
        float(x) for part in drawn.split('points="')[1:] for pair in part.split('"')[0].split() for x in pair.split(",")
    ]
    assert all(0 <= x <= 132 for x in numbers)
    assert drawn.count("<circle") == 1
    assert ("polyline" in drawn) == (sum(x is not None for x in values) > 1)
