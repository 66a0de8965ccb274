"""An audit of a day with planted mismatches: the files against the truth, the counts, labels, the page's safety and size."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tasks.audit.csv_guard import FORMULA
from tasks.audit.inputs import AuditOptions
from tasks.audit.write import write_audit
from tasks.errors import InputError
from tasks.report.page_templates import MAX_BYTES
from tests.support.audit_samples import CATEGORIES, NASTY, PICTURE, Day
from tests.support.report_samples import PageText


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    return Day(tmp_path_factory.mktemp("day"))


@pytest.fixture(scope="module")
def audited(day: Day, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("audited") / "out"
    return out, write_audit(out, day.inputs(), AuditOptions(fdr=0.2, hand_check=40))


@pytest.fixture(scope="module")
def row_of(day: Day) -> dict[str, int]:
    return {item: row for row, item in enumerate(day.ids.tolist())}


def images(audited: tuple[Path, dict[str, Any]], name: str) -> pl.DataFrame:
    return pl.read_parquet(audited[0] / f"{name}.parquet").filter(pl.col("modality") == "image")


def test_the_suspects_are_the_planted_ones_with_their_owners(
    day: Day, audited: tuple[Path, dict[str, Any]], row_of: dict[str, int]
) -> None:
    table = images(audited, "suspects")
    rows = np.array([row_of[x] for x in table["item_id"]])
    assert set(np.flatnonzero(day.wrong)) <= set(rows)
    assert table["probability"].to_numpy().tolist() == sorted(day.probability("image")[rows].tolist())
    share = np.cumsum(table["probability"]) / np.arange(1, len(table) + 1)
    np.testing.assert_allclose(table["false_alarm_share_so_far"], share, rtol=1e-5)
    assert table["false_alarm_share_so_far"][-1] < table["false_alarm_share_at_most"][-1] <= 0.2
    assert table["rank"].to_list() == list(range(1, len(table) + 1))
    true = day.ids[day.owner[rows]].tolist()
    hits = [true[i] in owners for i, owners in enumerate(table["owner_ids"]) if day.wrong[rows[i]]]
    assert np.mean(hits) > 0.85
    clear = [(x, y) for x, y in zip(table["clear_owner_id"], true, strict=True) if x is not None]
    assert len(clear) > 4 and np.mean([x == y for x, y in clear]) > 0.9
    assert table["interactions"].unique().to_list() == [3]
    assert (table["owner_probabilities"].list.sum() <= 1.0001).all()
    assert table["owner_ids"].list.len().to_list() == table["owner_cosines"].list.len().to_list()


def test_reasons_name_the_categories_that_differ(
    day: Day, audited: tuple[Path, dict[str, Any]], row_of: dict[str, int]
) -> None:
    right = []
    for item, reason in images(audited, "suspects").select("item_id", "reason").iter_rows():
        own, other = (CATEGORIES[day.category[x]] for x in (row_of[item], day.owner[row_of[item]]))
        if own != other:
            start = (
                rf"its image sits with {re.escape(other)} \(\d+ of the 10 nearest items\); its buyers.* place it with"
            )
            right.append(re.match(start, reason) is not None and f"place it with {own} (" in reason)
    assert len(right) > 20 and np.mean(right) > 0.75


def test_suggested_features_lead_back_to_the_lost_one(
    day: Day, audited: tuple[Path, dict[str, Any]], row_of: dict[str, int]
) -> None:
    lost_to, hits = np.argsort(day.owner), []
    columns = ("item_id", "feature_of_ids", "feature_of_plan_weights")
    for item, others, weights in images(audited, "suggested_features").select(columns).iter_rows():
        if day.wrong[row_of[item]]:
            true = day.ids[lost_to[row_of[item]]].item()
            hits.append(true in others)
            assert weights == [float(x == true) for x in others]
    assert np.mean(hits) > 0.85


def test_every_item_is_counted_as_judged_or_with_the_reason(day: Day, audited: tuple[Path, dict[str, Any]]) -> None:
    out, result = audited
    suspects, unjudged = (pl.read_parquet(out / f"{name}.parquet") for name in ("suspects", "unjudged"))
    for name, x in result["modalities"].items():
        assert x["judged"] == int((~np.isnan(day.probability(name))).sum())
        assert x["items"] == day.items == x["judged"] + sum(x["unjudged"].values())
        counted = dict(unjudged.filter(pl.col("modality") == name)["why"].value_counts().iter_rows())
        assert counted == x["unjudged"]
        listed = suspects.filter(pl.col("modality") == name)
        assert x["suspects"] == len(listed)
        assert x["expected_false"] == pytest.approx(listed["probability"].sum(), rel=1e-5)
        assert x["expected_false"] <= x["expected_false_at_most"] <= 0.2 * x["suspects"]
    why = dict(images(audited, "unjudged").select("item_id", "why").iter_rows())
    starts = {0: "no interactions", 5: "no feature", 6: "unusable feature", 8: "no feature", 20: "placeholder"}
    assert all(why[day.ids[row].item()].startswith(text) for row, text in starts.items())
    placeholders = images(audited, "placeholders")
    assert placeholders["item_id"].to_list() == day.ids[20:24].tolist()
    assert placeholders["items_in_group"].unique().to_list() == [4]
    assert json.loads((out / "audit.json").read_text())["modalities"] == json.loads(json.dumps(result["modalities"]))


def test_a_hand_check_goes_out_blind_and_comes_back_as_labels(
    day: Day, audited: tuple[Path, dict[str, Any]], row_of: dict[str, int], tmp_path: Path
) -> None:
    path = audited[0] / "hand_check.csv"
    table = pl.read_csv(path, infer_schema=False)
    assert not {"probability", "rank", "reason"} & set(table.columns)
    assert table["modality"].value_counts().sort("modality")["count"].to_list() == [40, 40]
    assert table["is_mismatch"].null_count() == 80
    again = write_audit(tmp_path / "again", day.inputs(), AuditOptions(fdr=0.2, hand_check=40))
    assert (tmp_path / "again" / "hand_check.csv").read_bytes() == path.read_bytes()
    assert again["modalities"] == audited[1]["modalities"]

    truth = [
        str(bool(day.wrong[row_of[x.removeprefix("'")]]) and m == "image").lower()
        for x, m in zip(table["item_id"], table["modality"], strict=True)
    ]
    filled = tmp_path / "filled.csv"
    table.with_columns(pl.Series("is_mismatch", truth)).write_csv(filled)
    result = write_audit(tmp_path / "labelled", day.inputs(), AuditOptions(fdr=0.2, labels=filled))
    image = result["labels"]["modalities"]["image"]
    a, n = image["agreement"], sum(t == "true" for t in truth)
    assert (a["labelled"], a["mismatches"], a["caught"], a["missed"], a["blamed"]) == (40, n, n, 0, 0)
    assert a["like_random"] and a["intervals_overlap"]
    # Recalibration brings the rate nearer to the truth than the mean of the probabilities.
    p = day.probability("image")
    judged = ~np.isnan(p)
    true = day.wrong[judged].mean()
    assert abs(image["recalibration"]["rate"] - true) < abs(1 - p[judged].mean() - true)
    table = pl.read_parquet(tmp_path / "labelled" / "suspects.parquet")
    assert table["probability_recalibrated"].null_count() == 0
    assert table.filter(pl.col("modality") == "image")["is_mismatch_by_hand"].count() >= n
    assert "Your labels against the estimate" in PageText((tmp_path / "labelled" / "audit.html").read_text()).text


def test_labels_of_the_suspects_alone_give_a_warning(day: Day, tmp_path: Path) -> None:
    worst = [x for x in np.argsort(day.probability("image"))[:30].tolist() if day.wrong[x]]
    labels = {"item_id": day.ids[worst], "modality": ["image"] * len(worst), "is_mismatch": [True] * len(worst)}
    pl.DataFrame(labels).write_parquet(tmp_path / "l.parquet")
    result = write_audit(tmp_path / "out", day.inputs(), AuditOptions(labels=tmp_path / "l.parquet"))
    agreement = result["labels"]["modalities"]["image"]["agreement"]
    assert not agreement["like_random"] and not agreement["intervals_overlap"]
    assert result["labels"]["modalities"]["text"] == {"labelled": 0, "agreement": None}
    assert "not a random sample" in PageText((tmp_path / "out" / "audit.html").read_text()).text


def test_top_lists_the_worst_at_any_share_of_false_alarms(day: Day, tmp_path: Path) -> None:
    result = write_audit(tmp_path, day.inputs(), AuditOptions(top=3))["modalities"]
    assert [x["suspects"] for x in result.values()] == [3, 3]
    assert result["text"]["expected_false_share"] > 0.9
    assert result["text"]["fdr"] is None


def test_a_modality_that_is_not_identifiable_has_no_suspects(tmp_path: Path) -> None:
    blind = Day(tmp_path, identifiable=False, labels=False, integer_ids=True)
    out = tmp_path / "out"
    result = write_audit(out, blind.inputs(), AuditOptions(fdr=1.0, hand_check=5))
    image, text = result["modalities"]["image"], result["modalities"]["text"]
    assert (image["suspects"], image["judged"], image["mismatch_rate"], image["hand_check"]) == (0, 0, None, None)
    assert image["unjudged"]["modality not identifiable"] > 300
    assert text["suspects"] == text["judged"]
    table = pl.read_parquet(out / "suspects.parquet")
    assert table["item_id"].dtype == pl.Int64 and table["owner_ids"].dtype == pl.List(pl.Int64)
    assert table["reason"][0].startswith("its text sits with “")
    assert "mismatches cannot be detected" in PageText((out / "audit.html").read_text()).text


def test_the_page_is_safe_and_shows_only_safe_pictures(audited: tuple[Path, dict[str, Any]]) -> None:
    text = (audited[0] / "audit.html").read_text()
    page = PageText(text)
    # The page's own script is the only one, and holds no data.
    assert text.count("<script") == 1 and "<script>alert" not in text and "<b>Art" not in text
    assert NASTY in page.text and "<b>Art</b>" in page.text
    sources = {value for tag, name, value in page.attributes if tag == "img" and name == "src"}
    assert sources == {PICTURE, "https://pictures.example/a?b=1&c=2"}
    assert {value for tag, name, value in page.attributes if tag == "img" and name == "loading"} == {"lazy"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


@pytest.mark.parametrize("name", ["suspects.csv", "suggested_features.csv", "hand_check.csv"])
def test_no_cell_of_a_csv_is_a_formula(audited: tuple[Path, dict[str, Any]], name: str) -> None:
    with (audited[0] / name).open(encoding="utf-8-sig", newline="") as stream:
        header, *rows = csv.reader(stream)
    text = [
        cell
        for row in rows
        for column, cell in zip(header, row, strict=True)
        if column not in ("behaviour", "cross_modal")
    ]
    assert any(cell.startswith("'=HYPERLINK") for cell in text)
    assert not [cell for cell in text if cell.startswith(FORMULA)]


def test_the_page_keeps_its_size(tmp_path: Path) -> None:
    sizes = []
    for items in (800, 2400):
        write_audit(tmp_path / str(items), Day(tmp_path, items=items).inputs(), AuditOptions(fdr=0.5))
        sizes.append((tmp_path / str(items) / "audit.html").stat().st_size)
    assert sizes[1] < 1.1 * sizes[0] < MAX_BYTES


def test_suspects_beyond_the_detailed_are_still_listed(
    day: Day, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.audit.findings.MOST_DETAILED", 5)
    result = write_audit(tmp_path, day.inputs(), AuditOptions(fdr=0.2))["modalities"]["image"]
    table = pl.read_parquet(tmp_path / "suspects.parquet").filter(pl.col("modality") == "image")
    assert result["suspects"] == len(table) > 30
    assert result["suspects_with_owners_searched"] == 5 == table["reason"].count() == table["owner_ids"].count()


def test_bad_labels_stop_it_before_anything_is_written(day: Day, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_audit(tmp_path / "out", day.inputs(), AuditOptions(labels=tmp_path / "none.csv"))
    assert not (tmp_path / "out").exists()


def test_the_tables_are_empty_but_typed_without_suspects(day: Day, tmp_path: Path) -> None:
    write_audit(tmp_path, day.inputs(), AuditOptions(top=0))
    full = pl.read_parquet(tmp_path / "suspects.parquet")
    assert set(pl.read_parquet(tmp_path / "placeholders.parquet")["modality"]) == {"image"}
    assert full.is_empty() and full.schema["owner_ids"] == pl.List(pl.String)
    assert len((tmp_path / "suspects.csv").read_text(encoding="utf-8-sig").splitlines()) == 1
