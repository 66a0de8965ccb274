"""The run report: what the page says, and that its JSON twin says the same."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.published_records import Check, QualityReport
from rectifier_core.base.records import BalanceOutcome
from tasks.errors import StorageError
from tasks.report.page import render_page
from tasks.report.render import MAX_BYTES, Outcome, ReportInputs, write_report
from tests.support.report_samples import GATE, NASTY, PageText, Run

REFUSED = QualityReport(
    checks=(
        *GATE.checks,
        Check(name="image: mean cosine with version 2", value=float("nan"), bound=0.9, rule="at least", passed=False),
    )
)


def _written(folder: Path, inputs: ReportInputs) -> tuple[str, dict[str, Any], str]:
    page = write_report(folder, inputs).read_text()
    return page, json.loads((folder / "report.json").read_text()), PageText(page).text


def test_page_and_twin_say_the_same(tmp_path: Path) -> None:
    run = Run(tmp_path)
    page, twin, text = _written(tmp_path / "out", run.inputs())
    assert render_page(twin) == page
    judged, missing = int((~np.isnan(run.trust)).sum()), int((~run.present).sum())
    passed = int((run.present & ~run.trained).sum())
    summary = (
        f"about 21 % (18–23 %) of {judged} judged items look mismatched, up to 26 % counting mix-ups among alike items; "
        f"{judged} rectified, {passed} passed through, 0 imputed, {missing} missing"
    )
    assert twin["summaries"][0] == {"modality": "image", "text": summary.replace(" %", "\u00a0%")}
    assert f"image: {summary}" in text
    assert f"of {judged} judged items: {judged} by behaviour; up to 26 % counting mix-ups among alike items" in text
    assert "quarantined: duplicate id 6 of 98 (6.1 %)" in text
    assert "quarantined: unknown item 31 of" in text
    assert "null user" not in text
    assert "rows in = rows out + quarantined 1,000,003 equal to 1,000,003 ✓ pass" in text
    without = int((~run.trained).sum())
    assert twin["read"]["without_interactions"] == {"count": without, "of": run.items}
    assert f"items without interactions {without} of 90" in text
    assert twin["anchors"]["best_epoch"] == 299
    assert "0.3 at its best, after 299 of 300 epochs" in text
    assert len(twin["anchors"]["loss"]["x"]) <= 200
    assert twin["anchors"]["loss"]["y"][-1] == 0.2
    image = twin["modalities"][0]
    assert sum(image["alignment"]["matched"]["counts"]) == sum(image["trust"]["histogram"]["counts"]) == judged
    assert f"{judged} own pairs against {judged} deliberately re-paired ones" in text
    assert image["balance"]["meaning"] in text
    assert "Column error left: 0.0082." in text
    assert "recall 0.993" in text
    assert [hub["features"] for hub in image["hubs"].values()] == [int(run.present.sum())] * 3
    uses = int(run.present.sum()) / judged
    assert image["hubs"]["sinkhorn"]["max_over_mean"] == pytest.approx(uses, rel=1e-5)
    assert f"Sinkhorn {uses:.3g} × mean" in text
    assert "source 2.50 s" in text
    assert "anchors reused 1 min 01 s" in text
    assert "all 1 min 04 s" in text


def test_suspects_are_ranked_and_listed_in_full(tmp_path: Path) -> None:
    run = Run(tmp_path)
    _, twin, text = _written(tmp_path / "out", run.inputs())
    listed = twin["modalities"][1]["suspects"]
    known = np.flatnonzero(~np.isnan(run.trust))
    wanted = known[np.argsort(run.trust[known], kind="stable")][:50]
    assert [int(item["item_id"][5:]) for item in listed] == wanted.tolist()
    for item in listed:
        row, unit = int(item["item_id"][5:]), unit_rows(run.features)
        unit = unit_rows(unit - unit[run.present].mean(axis=0))
        cosine = np.where(run.present, unit @ unit[row], -2)
        cosine[row] = -2
        best = np.argsort(-cosine)[:5]
        assert [near["item_id"] for near in item["nearest_by_feature"]] == [f"item-{i:07d}" for i in best]
        assert item["nearest_by_feature"][0]["similarity"] == pytest.approx(cosine[best[0]], abs=1e-4)
        assert len(item["nearest_by_behaviour"]) == 5
        assert item["interactions"] == 2
    assert text.count(listed[0]["item_id"]) >= 2
    assert "trust " + f"{listed[-1]['trust']:.3f}" in text
    assert "50 most suspect items" in text
    assert "40 more" in text


def test_untrusted_titles_are_text_and_short(tmp_path: Path) -> None:
    page, twin, text = _written(tmp_path / "out", Run(tmp_path).inputs())
    titles = {item["title"] for item in twin["modalities"][0]["suspects"]}
    assert NASTY in titles
    assert max(map(len, titles)) == 100
    assert "<script" not in page
    assert "<b>Fantasy" not in page
    assert NASTY in text


def test_credentials_never_reach_the_report(tmp_path: Path) -> None:
    inputs = replace(
        Run(tmp_path).inputs(),
        provenance={
            "endpoint": "https://store/x?X-Amz-Signature=hunter2&a=1",
            "session_token": "hunter2",
            "tokenless": "shown",
        },
    )
    page, twin, _ = _written(tmp_path / "out", inputs)
    assert "hunter2" not in page + json.dumps(twin)
    assert twin["run"]["table_uri"] == "s3://•••@bucket/features"
    assert twin["provenance"]["endpoint"] == "https://store/x?X-Amz-Signature=•••&a=1"
    assert twin["config"]["sinkhorn"] == {"tolerance": 1e-3}


@pytest.mark.parametrize(
    ("outcome", "version", "quality", "headline"),
    [
        ("published", 3, GATE, "PUBLISHED (version 3)"),
        ("unchanged", 2, GATE, "NOTHING NEW (already version 2)"),
        ("refused", None, REFUSED, "REFUSED BY THE QUALITY GATE (image: mean cosine with version 2)"),
    ],
)
def test_banner_comes_first(
    tmp_path: Path, outcome: Outcome, version: int | None, quality: QualityReport, headline: str
) -> None:
    inputs = replace(Run(tmp_path).inputs(outcome=outcome, version=version), quality=quality)
    page, twin, text = _written(tmp_path / "out", inputs)
    assert f'<header class="banner {outcome}">' in page
    assert text.index(headline) < text.index("What was read")
    assert twin["run"]["headline"] == headline
    if outcome == "refused":
        assert twin["quality"]["checks"][-1]["value"] is None
        assert "mean cosine with version 2 is –, wanted at least 0.9" in text
        assert "– at least 0.9 ✕ fail" in text


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    _, twin, text = _written(tmp_path / "out", Run(tmp_path, identifiable=False).inputs())
    assert "image: mismatches cannot be told (own pairs look like re-paired ones); " in text
    assert twin["modalities"][0]["trust"]["mismatch_rate"] is None
    assert twin["modalities"][0]["suspects"] == []
    assert "No item is ranked: trust cannot be told for this modality." in text


@pytest.mark.parametrize("items", [1, 40])
def test_no_anchors_at_all(tmp_path: Path, items: int) -> None:
    _, twin, text = _written(tmp_path / "out", Run(tmp_path, items=items, anchors=False).inputs())
    image = twin["modalities"][0]
    assert image["hubs"] == {"raw": None, "row": None, "sinkhorn": None}
    assert image["balance"]["outcome"] == "EMPTY"
    assert BalanceOutcome.EMPTY.value in text
    assert "Nothing to draw: no item has both an anchor and this feature." in text
    assert image["status"]["passed_through"] == image["present"] > 0


def test_one_item_without_labels(tmp_path: Path) -> None:
    _, twin, text = _written(tmp_path / "out", Run(tmp_path, items=1, labels=False).inputs(("audio",)))
    (only,) = twin["modalities"][0]["suspects"]
    assert (only["item_id"], only["title"], only["nearest_by_feature"]) == ("item-0000000", None, [])
    assert "audio: most suspect item" in text
    assert "item-0000000" in text


def test_without_modalities_or_checks(tmp_path: Path) -> None:
    _, twin, text = _written(tmp_path / "out", replace(Run(tmp_path).inputs(()), quality=QualityReport(checks=())))
    assert twin["modalities"] == []
    assert "No checks were made." in text


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = Run(tmp_path).inputs()
    first, second = write_report(tmp_path / "a", inputs), write_report(tmp_path / "b", inputs)
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()
    write_report(tmp_path / "a", inputs)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["report.html", "report.json"]


def test_size_does_not_grow_with_the_catalog(tmp_path: Path) -> None:
    small = write_report(tmp_path / "small", Run(tmp_path, items=3_000).inputs(("image",))).stat().st_size
    large = write_report(tmp_path / "large", Run(tmp_path, items=300_000).inputs(("image",))).stat().st_size
    assert large < 1.1 * small < 400_000
    assert (tmp_path / "large/report.json").stat().st_size < 400_000


def test_many_modalities_list_fewer_suspects(tmp_path: Path) -> None:
    run = Run(tmp_path)
    inputs = run.inputs()
    wide = run.inputs(tuple(f"modality {i}" for i in range(18)))
    # One modality's outputs for all, so that their making does not take longer than the report.
    many = {name: replace(inputs.modalities["image"], features=wide.source) for name in wide.modalities}
    page, twin, text = _written(tmp_path / "out", replace(wide, modalities=many))
    (listed,) = {len(modality["suspects"]) for modality in twin["modalities"]}
    assert len(page.encode()) <= MAX_BYTES
    assert 0 < listed < 50
    assert f"{listed} most suspect items" in text
    assert "modality 17" in text


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    page = write_report(tmp_path, Run(tmp_path).inputs()).read_text()
    found = PageText(page)
    loading = ("href", "src", "xlink:href", "srcset", "data", "action", "poster")
    references = [value for _, name, value in found.attributes if name in loading]
    assert references
    assert all(value.startswith("#") for value in references)
    targets = {value for _, name, value in found.attributes if name == "id"}
    assert {value[1:] for value in references} | set(re.findall(r"url\(#([^)]*)\)", page)) <= targets
    assert not re.search(r"@import|url\((?!#)|https?:|<script|<link|<iframe|\son\w+=", page)
    assert len(targets) == sum(name == "id" for _, name, _ in found.attributes)


def test_unwritable_folder_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"report: writing .*report\.json failed"):
        write_report(tmp_path / "file" / "out", Run(tmp_path).inputs(("image",)))


def test_sequences_and_the_time_between_them_are_said(tmp_path: Path) -> None:
    odd = {
        "segments": 900,
        "segments_doubtful": 40,
        "items_with_doubtful": 1,
        "identifiable": True,
        "reason": "they stand clear",
    }
    lags = [
        {
            "first": "audio",
            "second": "image",
            "lag": lag,
            "identifiable": lag is not None,
            "reason": "no common time course.",
        }
        for lag in (-3, 1, 0, None)
    ]
    inputs = replace(Run(tmp_path).inputs(), sequences={"image": odd}, time_offsets=tuple(lags))
    page, twin, text = _written(tmp_path / "out", inputs)
    assert render_page(twin) == page
    assert "40 of its 900 segments are doubtful, in 1 item" in text
    assert [x["sequence"] for x in twin["modalities"] if x["name"] == "image"] == [odd]
    wanted = ["audio runs 3 segments behind image", "image runs 1 segment behind audio", "audio and image run in step"]
    assert twin["time_offsets"] == [
        *wanted,
        "audio and image: no time between them can be told (no common time course)",
    ]
    assert all(line in text for line in twin["time_offsets"])
    untold = {**odd, "identifiable": False}
    told = _written(tmp_path / "other", replace(inputs, sequences={"image": untold}, time_offsets=()))[2]
    assert "its 900 segments cannot be told apart (they stand clear)" in told
