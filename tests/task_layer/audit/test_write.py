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
from tasks.audit.explanations import describe_audit
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
    assert 0.15 < table["false_alarm_share_so_far"][-1] <= 0.2 < table["false_alarm_share_at_most"][-1]
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
        assert x["expected_false"] <= min(x["expected_false_at_most"], 0.2 * x["suspects"])
        moved = 1 - day.probability(name)
        assert x["moved"]["more_than_0.1"] == int((moved > 0.1).sum())
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
    assert {"title", "category", "text", "picture"} <= set(table.columns)
    assert not path.read_bytes().startswith(b"\xef\xbb\xbf")
    own = table["category"].str.strip_prefix("'")
    names = {item: CATEGORIES[day.category[row]] for item, row in row_of.items()} | {
        f"Thing {row}": CATEGORIES[c] for row, c in enumerate(day.category)
    }
    near = [[names[x] for x in cell.split(" | ") if x in names] for cell in table["nearest_by_behaviour"]]
    # Behaviour puts items of one category together in this sample.
    same = [x == category for category, found in zip(own, near, strict=True) for x in found]
    assert len(same) > 80 and np.mean(same) > 0.8
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


def test_the_page_shows_the_sample_without_an_estimate(audited: tuple[Path, dict[str, Any]]) -> None:
    facts = json.loads((audited[0] / "audit.json").read_text())
    drawn = pl.read_csv(audited[0] / "hand_check.csv", infer_schema=False).filter(pl.col("modality") == "image")
    cards = facts["hand_check_galleries"]["image"]
    assert [x["item_id"] for x in cards] == [x.removeprefix("'") for x in drawn["item_id"]]
    assert {key for card in cards for key in card} == {"item_id", "title", "category", "text", "picture", "buyers"}
    text = PageText((audited[0] / "audit.html").read_text()).text
    assert "The random sample: 40 items to check by hand" in text and "Is this image the item's own?" in text


def test_a_conservative_list_is_shorter_and_keeps_its_upper_bound(day: Day, tmp_path: Path) -> None:
    usual, careful = (
        write_audit(tmp_path / str(x), day.inputs(), AuditOptions(fdr=0.2, conservative=x))["modalities"]["image"]
        for x in (False, True)
    )
    assert 0 < careful["suspects"] < usual["suspects"]
    assert careful["expected_false_at_most"] <= 0.2 * careful["suspects"]


def test_an_empty_list_says_why_and_what_other_options_would_list(day: Day, tmp_path: Path) -> None:
    result = write_audit(tmp_path, day.inputs(), AuditOptions(fdr=0.001))
    image = result["modalities"]["image"]
    options = {"--fdr 0.3": AuditOptions(fdr=0.3), "--top 50": AuditOptions(top=50)}
    for offer, (name, other) in zip(image["offers"], options.items(), strict=True):
        there = write_audit(tmp_path / name, day.inputs(), other)["modalities"]["image"]
        assert (offer["option"], offer["listed"]) == (name, there["suspects"])
        assert offer["expected_false"] == pytest.approx(there["expected_false"])
        assert there["offers"] == []
    text = PageText((tmp_path / "audit.html").read_text()).text
    why = "none listed: the expected share of false alarms would be above 0.1 %; the most suspect item's feature is its own"
    for said in (text, describe_audit(result)):
        said = said.replace("\u00a0", " ")
        assert why in said and f"--fdr 0.3 would list {image['offers'][0]['listed']} (about " in said
        assert "--top 50 would list 50 (about " in said


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
    with (audited[0] / name).open(encoding="utf-8", newline="") as stream:
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
    assert len((tmp_path / "suspects.csv").read_text(encoding="utf-8").splitlines()) == 1
