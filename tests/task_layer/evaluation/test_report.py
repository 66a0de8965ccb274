"""The evaluation's report: planted effects appear in its numbers, sentences, tables and pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from tasks.errors import InputError, StorageError
from tasks.evaluation.report import write_evaluation_report, write_evidence
from tests.support.evaluation_samples import Sample, curves, write
from tests.support.report_samples import PageText

CONTROLS = ("shuffled_anchors", "smoothed", "smoothed_by_anchors", "anchors_appended")


def report(folder: Path, *samples: Sample) -> dict[str, Any]:
    """``evaluation.json`` of the report on ``samples``."""
    write_evaluation_report(folder / "report", write(folder, *samples))
    facts: dict[str, Any] = json.loads((folder / "report" / "evaluation.json").read_text())
    return facts


def comparison(facts: dict[str, Any], question: str, backbone: str, **where: Any) -> dict[str, Any]:
    wanted = {"question": question, "backbone": backbone, "metric": "recall@20"} | where
    fact: dict[str, Any]
    (fact,) = [x for x in facts["comparisons"] if all(x[name] == value for name, value in wanted.items())]
    return fact


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """vbpr gains and beats its controls, lattice gains less than plain smoothing, mgcn is harmed, smore does not change."""
    controls = dict.fromkeys(CONTROLS, 0.14)
    levels = curves("vbpr", raw=(0.2, 0.16, 0.12), rectified=(0.2, 0.19, 0.18), controls=controls)
    smoothed = controls | {"smoothed": 0.195}
    levels |= curves("lattice", raw=(0.2, 0.18, 0.16), rectified=(0.2, 0.19, 0.184), controls=smoothed)
    levels |= curves("mgcn", raw=(0.2, 0.19, 0.18), rectified=(0.19, 0.17, 0.15), controls={"shuffled_anchors": 0.15})
    levels |= curves("smore", raw=(0.2, 0.17, 0.14), rectified=(0.2, 0.17, 0.14))
    folder = tmp_path_factory.mktemp("planted")
    facts = report(folder, Sample(levels=levels | {("lightgcn", "raw", 0.0): 0.15}, scatter=0.3))
    return facts, folder / "results.parquet"


def test_planted_differences_are_reported(planted: tuple[dict[str, Any], Path]) -> None:
    facts = planted[0]
    gain = comparison(facts, "damage", "vbpr", share=0.4)
    assert gain["relative"]["mean"] == pytest.approx(0.5, abs=0.02)
    assert gain["relative"]["low"] < gain["relative"]["mean"] < gain["relative"]["high"]
    assert gain["recovered"]["mean"] == pytest.approx(0.75, abs=0.03)
    assert gain["cost"]["mean"] == pytest.approx(-0.4, abs=0.02)
    assert (gain["verdict"], gain["seeds"]) == ("better", 5)
    assert comparison(facts, "damage", "mgcn", share=0.4)["verdict"] == "worse"
    assert comparison(facts, "damage", "smore", share=0.4)["verdict"] == "unclear"
    assert comparison(facts, "control", "lattice", against="smoothed")["verdict"] == "worse"
    assert comparison(facts, "control", "vbpr", against="smoothed")["verdict"] == "better"
    (touched,) = (x for x in facts["groups"] if (x["group"], x["backbone"], x["share"]) == ("touched", "vbpr", 0.4))
    assert touched["change"]["mean"] == pytest.approx(0.5, abs=0.02)


def test_p_is_corrected_within_a_question_and_a_setting(planted: tuple[dict[str, Any], Path]) -> None:
    for share in (0.2, 0.4):
        family = [x for x in planted[0]["comparisons"] if (x["question"], x["share"]) == ("damage", share)]
        least = min(family, key=lambda x: x["p"])
        assert len(family) == 4 and least["p_holm"] == pytest.approx(4 * least["p"], rel=1e-4)


def test_the_sentences_name_gains_and_losses(planted: tuple[dict[str, Any], Path]) -> None:
    text = " ".join(planted[0]["summary"])
    assert "5 backbones, 5 seeds, 170 cells and 120 test users" in text
    assert "With swap 40 % of all features, rectified against raw in Recall@20: better 2 of 4 (vbpr +" in text
    assert "worse 1 of 4 (mgcn -16" in text and "worse 1 of 9 (lattice smoothed -5" in text


def test_differences_are_exact_without_scatter(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2, 0.16, 0.12), rectified=(0.202, 0.17, 0.18), controls={"smoothed": 0.18})
    facts = report(tmp_path, Sample(levels=levels, scatter=0, users=40))
    assert comparison(facts, "clean", "vbpr")["relative"]["mean"] == pytest.approx(0.01, rel=1e-4)
    found = comparison(facts, "damage", "vbpr", share=0.2)
    assert [found[x]["mean"] for x in ("relative", "recovered", "cost")] == pytest.approx(
        [0.0625, 0.25, -0.2], rel=1e-4
    )
    assert comparison(facts, "control", "vbpr")["difference"]["mean"] == 0


def test_page_document_and_pictures_show_the_numbers(planted: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    facts, results = planted
    page = write_evaluation_report(tmp_path, results).read_text()
    level = comparison(facts, "damage", "vbpr", share=0.4)["a"]
    shown = f"{level['mean']:.4g} ± {level['sd']:.2g}"
    assert shown in PageText(page).text
    assert "<script" not in page and "http://" not in page and "https://" not in page
    document, *pictures = write_evidence(tmp_path / "evidence", results)
    text = document.read_text()
    assert shown in text and all(sentence in text for sentence in facts["summary"])
    assert [x.name for x in pictures] == ["stress-swap-all.png"]
    for picture in pictures:
        assert f"]({picture.name})" in text
        with Image.open(picture) as image:
            assert image.width > 500 and not image.info.get("Software")
    for table in (block for block in text.split("\n\n") if block.startswith("| ")):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_same_results_give_the_same_bytes(planted: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    """The order of rows does not matter."""
    for name in ("results.parquet", "per_user.parquet"):
        pl.read_parquet(planted[1].with_name(name)).reverse().write_parquet(tmp_path / name)
    first, again = (write_evidence(tmp_path / at.parent.name, at) for at in (planted[1], tmp_path / "results.parquet"))
    assert [path.name for path in first] == [path.name for path in again]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, again, strict=True))


def test_a_recommender_below_popularity_gets_no_verdict(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.002, 0.002, 0.001), rectified=(0.004, 0.008, 0.01))
    levels |= curves("mgcn", raw=(0.1, 0.08, 0.05), rectified=(0.1, 0.09, 0.098)) | {("lightgcn", "raw", 0.0): 0.12}
    baselines = {"chance_recall@20": 0.003, "popularity_recall@20": 0.095}
    facts = report(tmp_path, Sample(levels=levels, scatter=0.3, facts=baselines))
    judged = [x for x in facts["comparisons"] if x["backbone"] == "vbpr"]
    assert len(judged) == 4 and {x["verdict"] for x in judged} == {"below popularity"}
    assert all(x["relative"] is None and x["p_holm"] is None for x in judged)
    # Damage takes mgcn below popularity, and rectified features bring it back above.
    assert comparison(facts, "damage", "mgcn", share=0.4)["verdict"] == "better"
    assert comparison(facts, "damage", "mgcn", share=0.2)["verdict"] == "below popularity"
    text = " ".join(facts["summary"])
    assert "No verdict where a recommender ranks below popularity: vbpr, mgcn." in text
    # The other side is below popularity, so the gain has no percentage.
    assert comparison(facts, "damage", "mgcn", share=0.4)["relative"] is None
    assert "better 1 of 1 (mgcn)." in text
    document = write_evidence(tmp_path / "evidence", tmp_path / "results.parquet")[0].read_text()
    first = document.split("## ")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in first.splitlines() if line.startswith("| ")]
    assert [(row[0], row[1], row[3]) for row in rows[2:]] == [
        ("chance", "–", ""),
        ("popularity", "–", ""),
        ("lightgcn, ids only", "–", ""),
        ("vbpr", "raw", "below popularity"),
        ("mgcn", "raw", ""),
    ]
    assert [float(row[2].split()[0]) for row in rows[2:4]] == [0.003, 0.095]
    damage = next(x for x in document.split("## ") if x.startswith("Damaged"))
    assert re.search(r"\| \+0\.04\d+ absolute \|", damage)
    # Every table says what chance, popularity and ids alone reach.
    assert [line.split("|")[1].strip() for line in damage.splitlines()[-5:] if line][-3:] == [
        *("chance", "popularity", "lightgcn, ids only")
    ]
    # No group of a recommender below popularity has a relative change.
    assert {x["backbone"] for x in facts["groups"]} == {"mgcn"}


SEARCH = {
    "seeds": [7, 8],
    "backbone": "vbpr",
    "chosen": {"learning_rate": 0.01, "weight_decay": 0.001, "epochs": 18, "score": 0.31},
    "own": {"learning_rate": 0.005, "weight_decay": 5.0, "epochs": 18, "score": 0.02},
    "candidates": [
        {"learning_rate": 0.005, "weight_decay": 5.0, "epochs": 18, "score": 0.02},
        {"learning_rate": 0.01, "weight_decay": 0.001, "epochs": 18, "score": 0.31},
        {"learning_rate": 1.0, "weight_decay": 0.001, "epochs": 2, "score": None},
    ],
    "edges": ["weight_decay, the smallest tried"],
    "epochs": 38,
}


def test_the_search_is_in_the_numbers_and_on_the_page(tmp_path: Path) -> None:
    results = write(tmp_path, Sample(levels=curves("vbpr", raw=(0.2,), rectified=(0.21,), shares=(0.0,))))
    (tmp_path / "searches.json").write_text(json.dumps([SEARCH]))
    page = PageText(write_evaluation_report(tmp_path / "report", results).read_text()).text
    facts = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert facts["searches"] == [SEARCH]
    edge = "The best setting is at the edge of what was tried: vbpr (weight_decay, the smallest tried)."
    assert any(x.startswith(edge) for x in facts["summary"]) and edge in page
    document = write_evidence(tmp_path / "evidence", results)[0].read_text()
    chosen = "| vbpr | 7, 8 | 0.01 | 0.001 | 0.31 | 0.005, 5 | 0.02 | weight_decay, the smallest tried |"
    assert chosen in document and "| vbpr | 7, 8 | 1 | 0.001 | 2 | – |" in document
    (tmp_path / "searches.json").write_text("[")
    with pytest.raises(InputError, match=r"searches\.json: cannot be read as JSON"):
        write_evaluation_report(tmp_path, results)


def test_rectified_with_anchors_is_compared_with_anchors_alone(tmp_path: Path) -> None:
    controls = {"anchors_appended": 0.2, "rectified_anchors_appended": 0.22}
    levels = curves("vbpr", raw=(0.2, 0.12), rectified=(0.2, 0.18), shares=(0, 0.4), controls=controls)
    facts = report(tmp_path, Sample(levels=levels, scatter=0.2))
    found = comparison(facts, "appended", "vbpr", share=0.4)
    assert (found["against"], found["verdict"]) == ("anchors_appended", "better")
    assert "Anchors appended to rectified against to raw features in Recall@20: better 1 of 1" in " ".join(
        facts["summary"]
    )


def test_a_share_of_a_cost_too_small_to_divide_by_is_not_given(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2, 0.199), rectified=(0.2, 0.15), shares=(0, 0.4))
    facts = report(tmp_path, Sample(levels=levels, scatter=0))
    found = comparison(facts, "damage", "vbpr", share=0.4)
    assert found["cost"]["high"] < 0 and found["recovered"] is None
    assert found["relative"]["mean"] == pytest.approx(-0.246, abs=0.001)


def test_a_change_too_uncertain_to_give_is_not_given(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.1,), rectified=(0.18,), shares=(0.0,))
    facts = report(tmp_path, Sample(levels=levels, seeds=(7, 8), scatter=40))
    found = comparison(facts, "clean", "vbpr")
    assert found["relative"] is None and found["verdict"] == "unclear" and found["difference"]["mean"] is not None
    assert "rectified against raw in Recall@20: unclear 1 of 1 (vbpr)." in " ".join(facts["summary"])


PARTS = {
    "raw alone": Sample(levels={("vbpr", "raw", 0.0): 0.2}),
    "clean alone": Sample(levels=curves("vbpr", raw=(0.2,), rectified=(0.21,), shares=(0.0,))),
    "damage without clean": Sample(
        levels=curves("vbpr", raw=(0.1,), rectified=(0.15,), shares=(0.3,)), kind="noise", damaged="image"
    ),
    "one seed": Sample(levels=curves("vbpr", raw=(0.2, 0.1), rectified=(0.2, 0.15), shares=(0, 0.4)), seeds=(7,)),
    "two seeds": Sample(levels=curves("vbpr", raw=(0.2, 0.1), rectified=(0.2, 0.11), shares=(0, 0.4)), seeds=(7, 8)),
    "nothing hit": Sample(levels=curves("vbpr", raw=(0, 0), rectified=(0, 0), shares=(0, 0.4))),
    "raw hits nothing": Sample(levels=curves("vbpr", raw=(0, 0), rectified=(0.1, 0.1), shares=(0, 0.4))),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_a_part_of_a_grid_has_a_report(tmp_path: Path, name: str) -> None:
    facts = report(tmp_path, PARTS[name])
    assert write_evidence(tmp_path / "evidence", tmp_path / "results.parquet")
    if name == "one seed":
        assert {x["verdict"] for x in facts["comparisons"]} == {"untested"}
        assert "One seed allows no test." in facts["summary"][0]


def test_editing_is_compared_with_none(tmp_path: Path) -> None:
    samples = [
        Sample(
            levels={("lightgcn", "raw", 0.0): level},
            noise=("random", share) if share else ("none", 0.0),
            editing=editing,
            scatter=0.1,
            facts={"edit_trust": 0.5},
        )
        for share, levels in ((0.0, (0.2, 0.21, 0.19)), (0.3, (0.15, 0.17, 0.14)))
        for editing, level in zip(("none", "pruning_graph_0.1", "aligned"), levels, strict=True)
    ]
    facts = report(tmp_path, *samples)
    best = comparison(facts, "editing", "lightgcn", editing="pruning_graph_0.1", noise_share=0.3)
    assert best["relative"]["mean"] == pytest.approx(0.17 / 0.15 - 1, abs=0.01) and best["verdict"] == "better"
    assert "better 2 of 4 (lightgcn pruning graph 0.1 +" in facts["summary"][-1]
    document, picture = write_evidence(tmp_path / "evidence", tmp_path / "results.parquet")
    assert picture.name == "editing-random.png" and "edit trust" in document.read_text()


def test_variants_are_compared_with_rectified_and_escaped(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2, 0.12), rectified=(0.2, 0.18), shares=(0, 0.4))
    facts = report(tmp_path, Sample(levels=levels | {("vbpr", "row_<b>", 0.4): 0.15}, scatter=0.2))
    assert comparison(facts, "variant", "vbpr", variant="row_<b>")["verdict"] == "worse"
    page = (tmp_path / "report" / "evaluation.html").read_text()
    assert "row <b>" in PageText(page).text and "row <b>" not in page


def test_unreadable_results_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.parquet: cannot be read as Parquet .*; run the evaluation first"):
        write_evaluation_report(tmp_path, tmp_path / "nothing.parquet")
    results = write(tmp_path, Sample(levels={("vbpr", "raw", 0.0): 0.2}))
    frame = pl.read_parquet(results)
    frame.drop("variant").write_parquet(results)
    with pytest.raises(InputError, match=r"results\.parquet: lacks the column 'variant'"):
        write_evaluation_report(tmp_path, results)
    frame.head(0).write_parquet(results)
    with pytest.raises(InputError, match="no cell is finished yet"):
        write_evaluation_report(tmp_path, results)


def test_a_folder_that_cannot_be_written_is_an_error(planted: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file.*: cannot be written: "):
        write_evaluation_report(tmp_path / "file" / "report", planted[1])
