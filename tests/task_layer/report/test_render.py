"""The run report: the page and report.json hold the same facts, escape every string, and stay small."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.published_records import Check, QualityReport
from tasks.errors import StorageError
from tasks.report import page_templates
from tasks.report.inputs import Outcome
from tasks.report.render import render_page, write_report
from tests.support.report_samples import GATE, NASTY, PageText, Run, written

REFUSED = QualityReport(
    checks=(
        *GATE.checks,
        Check(name="image: mean cosine with version 2", value=float("nan"), bound=0.9, rule="at least", passed=False),
    )
)


class Report(NamedTuple):
    """A run and its report."""

    run: Run
    page: str
    twin: dict[str, Any]
    text: str


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of two modalities, with credentials in what it is told."""
    folder = tmp_path_factory.mktemp("report")
    run = Run(folder)
    address = "https://store/x?X-Amz-Signature=hunter2&a=1"
    provenance = {"endpoint": address, "session_token": "hunter2", "tokenless": "shown"}
    return Report(run, *written(folder / "out", replace(run.inputs(), provenance=provenance)))


def test_the_page_shows_the_facts(report: Report) -> None:
    run, _, twin, text = report
    judged, missing, without = (int(x.sum()) for x in (~np.isnan(run.trust), ~run.present, ~run.trained))
    passed = int((run.present & ~run.trained).sum())
    summary = (
        f"about 21 % (18–23 %) of {judged} judged items look mismatched, up to 26 % with swaps between similar items"
    )
    clearly, slightly = (int((1 - run.trust > far).sum()) for far in (0.1, 0.01))
    # No count of zero: nothing was imputed.
    changed = f"{clearly} changed clearly, {slightly - clearly} slightly; {judged} rectified, {passed} passed through, {missing} missing"
    assert twin["summaries"][0] == {
        "modality": "image",
        "wrong": summary.replace(" %", "\u00a0%"),
        "changed": changed,
    }
    assert f"image: {summary}" in text and f"image: {changed}" in text
    assert twin["modalities"][0]["moved"] == {"more_than_0.1": clearly, "more_than_0.01": slightly}
    assert "quarantined: duplicate id 6 of 98 (6.1 %)" in text and "null user" not in text
    assert "rows in = rows out + quarantined 1,000,003 equal to 1,000,003 ✓ pass" in text
    assert twin["read"]["without_interactions"] == {"count": without, "of": run.items}
    assert f"items without interactions {without} of 90" in text
    assert twin["anchors"]["best_epoch"] == 299 and "is 0.3, after 299 of 300 epochs" in text
    image = twin["modalities"][0]
    assert sum(image["alignment"]["matched"]["counts"]) == sum(image["trust"]["histogram"]["counts"]) == judged
    assert image["balance"]["meaning"] in text and "is 0.0082." in text and "recall 0.993" in text
    uses = int(run.present.sum()) / judged
    assert image["hubs"]["sinkhorn"]["max_over_mean"] == pytest.approx(uses, rel=1e-5)
    assert f"Sinkhorn {uses:.3g} × mean" in text
    assert "source 2.50 s" in text and "anchors reused 1 min 01 s" in text and "all 1 min 04 s" in text


def test_suspects_are_ranked_with_their_nearest_items(report: Report) -> None:
    run, _, twin, text = report
    suspects = twin["modalities"][1]["suspects"]
    known = np.flatnonzero(~np.isnan(run.trust))
    doubtful = known[run.trust[known] < 0.5]
    assert [int(x["item_id"][5:]) for x in suspects] == doubtful[np.argsort(run.trust[doubtful])].tolist()
    unit = unit_rows(run.features)
    unit = unit_rows(unit - unit[run.present].mean(axis=0))
    for item in suspects:
        row = int(item["item_id"][5:])
        cosine = np.where(run.present, unit @ unit[row], -2)
        cosine[row] = -2
        best = np.argsort(-cosine)[:5]
        assert [near["item_id"] for near in item["nearest_by_feature"]] == [f"item-{i:07d}" for i in best]
        assert item["nearest_by_feature"][0]["similarity"] == pytest.approx(cosine[best[0]], abs=1e-4)
        assert (len(item["nearest_by_behaviour"]), item["interactions"]) == (5, 2)
    assert f"{len(doubtful)} most suspect items" in text and f"{len(doubtful) - 10} more" in text
    assert f"10 worst text features of {len(doubtful)} that are more likely another item's" in text


def test_a_clean_catalog_has_no_list_of_suspects(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.trust = np.where(np.isnan(run.trust), np.nan, 0.97).astype(np.float32)
    _, twin, text = written(tmp_path / "out", run.inputs(("image",)))
    assert twin["modalities"][0]["suspects"] == []
    assert "Nothing: no feature is more likely another item's than the item's own" in text or "quarantined row" in text
    assert "image: no suspect item" in text and "most suspect" not in text
    assert f"the lowest of {int((~np.isnan(run.trust)).sum())} trust values is 0.970" in text


def test_titles_are_escaped_and_short_and_credentials_masked(report: Report) -> None:
    _, page, twin, text = report
    titles = {item["title"] for item in twin["modalities"][0]["suspects"]}
    assert NASTY in titles and max(map(len, titles)) == 100
    assert "<script" not in page and "<b>Fantasy" not in page and NASTY in text
    assert "hunter2" not in page + json.dumps(twin)
    assert twin["run"]["table_uri"] == "s3://•••@bucket/features"
    assert twin["provenance"]["endpoint"] == "https://store/x?X-Amz-Signature=•••&a=1"


@pytest.mark.parametrize(
    ("outcome", "version", "quality", "headline"),
    [
        ("published", 3, GATE, "PUBLISHED (version 3)"),
        ("unchanged", 2, GATE, "NOTHING NEW (already version 2)"),
        ("refused", None, REFUSED, "REFUSED BY THE QUALITY GATE (image: mean cosine with version 2)"),
    ],
)
def test_the_banner_comes_first(
    tmp_path: Path, outcome: Outcome, version: int | None, quality: QualityReport, headline: str
) -> None:
    inputs = replace(Run(tmp_path).inputs((), outcome=outcome, version=version), quality=quality)
    page, twin, text = written(tmp_path / "out", inputs)
    assert f'<header class="banner {outcome}">' in page
    assert text.index(headline) < text.index("What was read")
    if outcome == "refused":
        assert twin["quality"]["checks"][-1]["value"] is None
        assert "mean cosine with version 2 is –, but must be at least 0.9" in text
        assert "– at least 0.9 ✕ fail" in text


@pytest.mark.parametrize(("items", "labels"), [(1, False), (40, True)])
def test_a_run_without_anchors(tmp_path: Path, items: int, labels: bool) -> None:
    _, twin, text = written(tmp_path / "out", Run(tmp_path, items=items, anchors=False, labels=labels).inputs())
    image = twin["modalities"][0]
    assert image["hubs"] == {"raw": None, "row": None, "sinkhorn": None}
    assert image["balance"]["outcome"] == "EMPTY"
    assert "Nothing to draw: no item has both an anchor and this feature." in text
    assert image["status"]["passed_through"] == image["present"] > 0


def test_a_run_that_can_detect_nothing(tmp_path: Path) -> None:
    _, twin, text = written(tmp_path / "out", Run(tmp_path, identifiable=False).inputs())
    assert "image: mismatches cannot be detected (own pairs look like re-paired ones)" in text
    assert twin["modalities"][0]["trust"]["mismatch_rate"] is None
    assert twin["modalities"][0]["suspects"] == []
    assert "No item is ranked: mismatches cannot be detected in this modality." in text


def test_one_item_without_labels(tmp_path: Path) -> None:
    run = Run(tmp_path, items=1, labels=False)
    run.trust[:] = 0.2
    _, twin, text = written(tmp_path / "out", run.inputs(("audio",)))
    (only,) = twin["modalities"][0]["suspects"]
    assert (only["item_id"], only["title"], only["nearest_by_feature"]) == ("item-0000000", None, [])
    assert "audio: most suspect item" in text


def test_a_run_without_modalities_or_checks(tmp_path: Path) -> None:
    _, twin, text = written(tmp_path / "out", replace(Run(tmp_path).inputs(()), quality=QualityReport(checks=())))
    assert twin["modalities"] == [] and "The run made no checks." in text


def test_the_same_inputs_give_the_same_bytes_and_the_facts_alone_the_page(tmp_path: Path) -> None:
    inputs = Run(tmp_path).inputs(("image",))
    files = []
    for name in ("a", "b"):
        write_report(tmp_path / name, inputs)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1] and sorted(files[0]) == ["report.html", "report.json"]
    assert render_page(json.loads(files[0]["report.json"])).encode() == files[0]["report.html"]


def test_the_size_does_not_grow_with_the_catalog(tmp_path: Path) -> None:
    small = write_report(tmp_path / "small", Run(tmp_path, items=3_000).inputs(("image",))).stat().st_size
    large = write_report(tmp_path / "large", Run(tmp_path, items=100_000).inputs(("image",))).stat().st_size
    assert large < 1.1 * small < 400_000
    assert (tmp_path / "large/report.json").stat().st_size < 400_000


def test_a_page_that_would_be_too_large_lists_fewer_suspects(
    tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = len(report.page.encode()) * 3 // 4
    monkeypatch.setattr(page_templates, "MAX_BYTES", most)
    page, twin, text = written(tmp_path / "out", report.run.inputs())
    (listed,) = {len(modality["suspects"]) for modality in twin["modalities"]}
    assert len(page.encode()) <= most
    assert 0 < listed < 50 and f"{listed} most suspect items" in text


def test_the_page_fetches_and_runs_nothing(report: Report) -> None:
    page = re.sub("https://store/x", "", report.page)
    attributes = PageText(page).attributes
    loading = ("href", "src", "xlink:href", "srcset", "data", "action", "poster")
    references = [value for _, name, value in attributes if name in loading]
    assert references and all(value.startswith("#") or value == "audit/audit.html" for value in references)
    targets = {value for _, name, value in attributes if name == "id"}
    assert {value[1:] for value in references if value[0] == "#"} | set(re.findall(r"url\(#([^)]*)\)", page)) <= targets
    assert not re.search(r"@import|url\((?!#)|https?:|<script|<link|<iframe|\son\w+=", page)
    assert len(targets) == sum(name == "id" for _, name, _ in attributes)


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"report\.json: cannot be written: "):
        write_report(tmp_path / "file" / "out", Run(tmp_path).inputs(("image",)))


def test_sequences_and_their_time_offsets(tmp_path: Path) -> None:
    sequence = {
        "segments": 900, "segments_doubtful": 40, "items_with_doubtful": 1, "identifiable": True, "reason": "too short",
    }  # fmt: skip
    reason = "no common time course."
    lags = tuple(
        {"first": "audio", "second": "image", "lag": lag, "identifiable": lag is not None, "reason": reason}
        for lag in (-3, 1, 0, None)
    )
    inputs = replace(Run(tmp_path).inputs(("image",)), sequences={"image": sequence}, time_offsets=lags)
    _, twin, text = written(tmp_path / "out", inputs)
    assert "40 of its 900 segments look wrong, in 1 item" in text
    assert twin["modalities"][0]["sequence"] == sequence
    assert twin["time_offsets"] == [
        "audio is 3 segments later than image",
        "image is 1 segment later than audio",
        "audio and image have no time offset",
        "audio and image: the time offset cannot be measured (no common time course)",
    ]
    unknown = replace(inputs, sequences={"image": {**sequence, "identifiable": False}})
    assert "wrong segments cannot be detected (too short)" in written(tmp_path / "other", unknown)[2]
