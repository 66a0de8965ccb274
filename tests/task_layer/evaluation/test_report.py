"""The evaluation's report: planted effects come back as words and numbers, on any part of a grid."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from tasks.errors import InputError, StorageError
from tasks.evaluation.figures import drawings, sweep_of
from tasks.evaluation.report import render_evaluation, write_evaluation_report, write_evidence
from tests.support.evaluation_samples import Sample, curves, write
from tests.support.report_samples import PageText

MOST_PNG_BYTES = 150_000
CONTROLS = ("shuffled_anchors", "smoothed", "smoothed_by_anchors", "anchors_appended")


def told(folder: Path, results: Path) -> tuple[dict[str, Any], str]:
    page = write_evaluation_report(folder, results)
    assert page == folder / "evaluation.html"
    return json.loads((folder / "evaluation.json").read_text()), page.read_text()


def plain(text: str) -> str:
    return text.replace("\u00a0", " ")


def found(twin: dict[str, Any], question: str, backbone: str, **where: Any) -> dict[str, Any]:
    wanted = {"question": question, "backbone": backbone, "metric": "recall@20"} | where
    fact: dict[str, Any]
    (fact,) = [x for x in twin["comparisons"] if all(x[name] == value for name, value in wanted.items())]
    return fact


def four_backbones() -> Sample:
    """vbpr gains and beats its controls, lattice gains less than plain smoothing, mgcn is harmed, smore does not change."""
    controls = dict.fromkeys(CONTROLS, 0.14)
    levels = curves("vbpr", raw=(0.2, 0.16, 0.12), rectified=(0.2, 0.19, 0.18), controls=controls)
    levels |= curves(
        "lattice", raw=(0.2, 0.18, 0.16), rectified=(0.2, 0.19, 0.184), controls=controls | {"smoothed": 0.195}
    )
    levels |= curves("mgcn", raw=(0.2, 0.19, 0.18), rectified=(0.19, 0.17, 0.15), controls={"shuffled_anchors": 0.15})
    levels |= curves("smore", raw=(0.2, 0.17, 0.14), rectified=(0.2, 0.17, 0.14))
    return Sample(levels=levels | {("lightgcn", "raw", 0.0): 0.15}, scatter=0.3)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    folder = tmp_path_factory.mktemp("planted")
    results = write(folder, four_backbones())
    return *told(folder / "report", results), results


def test_the_paragraph_says_what_was_planted(planted: tuple[dict[str, Any], str, Path]) -> None:
    opening = planted[0]["opening"]
    paragraph, headline = plain(opening["paragraph"]), plain(opening["headline"])
    assert headline == "Gain on 2 of 4 backbones under damage, loss on 1, all controls exceeded on 1 of 3"
    assert opening["outcome"] == "harm"
    assert paragraph.startswith("5 backbones, 5 seeds, 170 cells, 120 test users. ")
    assert re.search(
        r"On clean features rectification costs more than 1 %: mgcn Recall@20 −5\.\d % \(−\d\.\d to −\d\.\d %\), p < \.001",
        paragraph,
    )
    assert re.search(
        r"With 40 % of the features swapped in all modalities, the gain .* significant on 2 of 4 backbones: vbpr \(\+\d+",
        paragraph,
    )
    assert re.search(r"not told from chance on smore \([+−]?0\.\d+ %\)", paragraph)
    assert re.search(r"a significant loss on mgcn \(−16\.\d %\)", paragraph)
    assert re.search(
        r"at least half is won back on 2 of 4 backbones: vbpr 7\d % \(\d+ to \d+ %\), lattice (5|6)\d % ", paragraph
    )
    assert re.search(
        r"rectified does NOT exceed every one: it does worse than plain smoothing \(−5\.\d %\) on lattice", paragraph
    )
    assert re.search(r"cannot be told from shuffled anchors \([+−]?\d\.\d+ %\) on mgcn", paragraph)
    assert "For lightgcn there is no pair of raw and rectified." in paragraph
    assert [line["backbone"] for line in opening["lines"]] == ["vbpr", "lattice", "mgcn", "smore"]
    vbpr = plain(opening["lines"][0]["text"])
    assert re.match(
        r"clean [+−]?0\.\d+ % \(.*\), p = \S+; with features swapped in all modalities: at 20 % \+1\d", vbpr
    )
    assert re.search(
        r"at 40 % \+(49|50)\.\d %\*+ \(7\d % of the cost\); against controls at 40 %: shuffled anchors \+2\d\.\d %\*",
        vbpr,
    )


def test_numbers_of_the_twin(planted: tuple[dict[str, Any], str, Path]) -> None:
    twin = planted[0]
    gain = found(twin, "damage", "vbpr", share=0.4)
    assert gain["relative"]["mean"] == pytest.approx(0.5, abs=0.02)
    assert gain["relative"]["low"] < 0.5 < gain["relative"]["high"] or abs(gain["relative"]["mean"] - 0.5) < 0.02
    assert gain["recovered"]["mean"] == pytest.approx(0.75, abs=0.03)
    assert gain["cost"]["mean"] == pytest.approx(0.4, abs=0.02)
    assert (gain["verdict"], gain["test"], gain["seeds"]) == ("better", "bootstrap", 5)
    assert gain["wilcoxon"] == {"p": 0.0625, "pairs": 5, "smallest": 0.0625}
    assert found(twin, "damage", "mgcn", share=0.4)["verdict"] == "worse"
    assert found(twin, "damage", "smore", share=0.4)["verdict"] == "unclear"
    assert found(twin, "control", "lattice", against="smoothed")["verdict"] == "worse"
    assert found(twin, "control_gain", "lattice", variant="smoothed")["p"] is None
    named = [("clean", 0.0), ("damage", 0.2), ("damage", 0.4), ("control", 0.4)]
    for question, share in named:
        family = sorted(
            (x for x in twin["comparisons"] if (x["question"], x["share"]) == (question, share)), key=lambda x: x["p"]
        )
        assert family[0]["p_holm"] == pytest.approx(min(1, len(family) * family[0]["p"]), rel=1e-4)
        assert all(x["p"] <= x["p_holm"] for x in family)
    touched = next(
        x
        for x in twin["groups"]
        if x["metric"] == "recall@20_touched" and x["backbone"] == "vbpr" and x["share"] == 0.4
    )
    assert touched["change"]["mean"] == pytest.approx(0.5, abs=0.02)


def test_exact_without_scatter(tmp_path: Path) -> None:
    """Relative change, cost and share won back by hand, and a control level with rectified to the last digit."""
    levels = curves("vbpr", raw=(0.2, 0.16, 0.12), rectified=(0.202, 0.17, 0.18), controls={"smoothed": 0.18})
    twin, _ = told(tmp_path / "report", write(tmp_path, Sample(levels=levels, scatter=0, users=40)))
    assert found(twin, "clean", "vbpr")["relative"] == pytest.approx({"mean": 0.01, "low": 0.01, "high": 0.01}, rel=0.2)
    at = found(twin, "damage", "vbpr", share=0.2)
    assert (at["relative"]["mean"], at["recovered"]["mean"], at["cost"]["mean"]) == pytest.approx(
        (0.0625, 0.25, 0.2), rel=1e-5
    )
    assert found(twin, "damage", "vbpr", share=0.4)["recovered"]["mean"] == pytest.approx(0.75, rel=1e-5)
    assert found(twin, "control", "vbpr")["verdict"] == "same"
    paragraph = plain(twin["opening"]["paragraph"])
    assert "rectified does NOT exceed every one: it cannot be told from plain smoothing (0.00 %) on vbpr." in paragraph


def test_a_plain_gain_is_called_one(tmp_path: Path) -> None:
    levels: dict[tuple[str, str, float], float] = {}
    for backbone in ("vbpr", "freedom"):
        levels |= curves(
            backbone, raw=(0.2, 0.16, 0.12), rectified=(0.2, 0.19, 0.18), controls=dict.fromkeys(CONTROLS, 0.13)
        )
    twin, page = told(tmp_path / "report", write(tmp_path, Sample(levels=levels, scatter=0.2)))
    opening = twin["opening"]
    assert (opening["outcome"], opening["headline"]) == (
        "gain",
        "Gain on 2 of 2 backbones under damage, all controls exceeded on 2",
    )
    assert "no backbone loses more than 1 % from rectification" in plain(opening["paragraph"])
    assert (
        "rectified exceeds every one (shuffled anchors, plain smoothing, smoothing by anchors and anchors appended)"
        in opening["paragraph"]
    )
    assert "NOT" not in opening["paragraph"]
    assert '<header class="banner published">' in page


def test_controls_that_win_elsewhere_are_named_too(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2, 0.16, 0.12), rectified=(0.2, 0.17, 0.18), controls={"smoothed": 0.13})
    levels |= {("vbpr", "smoothed", 0.2): 0.19, ("vbpr", "smoothed", 0.0): 0.23}
    twin, _ = told(tmp_path / "report", write(tmp_path, Sample(levels=levels, scatter=0.2)))
    paragraph = plain(twin["opening"]["paragraph"])
    assert (
        "with 40 % of the features swapped in all modalities, rectified exceeds every one (plain smoothing)"
        in paragraph
    )
    assert "it does NOT exceed, on clean features and at 20 %, plain smoothing on vbpr." in paragraph


def test_more_amounts_of_damage_do_not_weaken_the_claim(tmp_path: Path) -> None:
    """What the paragraph speaks of is a family of its own; a control that loses everywhere else is said in a word."""
    shares = (0.0, 0.1, 0.2, 0.3, 0.4)
    few = curves("vbpr", raw=(0.2, 0.14), rectified=(0.2, 0.15), shares=(0.0, 0.4))
    many = curves("vbpr", raw=(0.2, 0.19, 0.18, 0.16, 0.14), rectified=(0.2, 0.19, 0.18, 0.16, 0.15), shares=shares)
    many |= {("vbpr", name, share): 0.19 for name in ("smoothed", "shuffled_anchors") for share in shares[1:]}
    few_twin, many_twin = (
        told(tmp_path / n, write(tmp_path / n, Sample(levels=x)))[0] for n, x in (("few", few), ("many", many))
    )
    few_gain, many_gain = (found(twin, "damage", "vbpr", share=0.4) for twin in (few_twin, many_twin))
    assert few_gain["p_holm"] == few_gain["p"]
    assert many_gain["p_holm"] == many_gain["p"]
    assert found(many_twin, "damage", "vbpr", share=0.3)["p_holm"] >= found(many_twin, "damage", "vbpr", share=0.3)["p"]
    said = "it does NOT exceed, at 10 %, at 20 % and at 30 %, any control on any backbone measured."
    assert said in plain(many_twin["opening"]["paragraph"])


def test_the_page_shows_the_twin_and_nothing_from_outside(planted: tuple[dict[str, Any], str, Path]) -> None:
    twin, page, _ = planted
    assert render_evaluation(twin) == page
    text = plain(PageText(page).text)
    assert plain(twin["opening"]["paragraph"]) in text
    assert not re.search(r"<script|<link|<img|https?://|@import|url\((?!#)", page)
    for key in ("clean", "stress-swap-all", "controls-swap-all"):
        assert key in [drawing.key for drawing in drawings(twin)]
    assert page.count("<svg") == len(drawings(twin))
    level = found(twin, "damage", "vbpr", share=0.4)["a"]
    assert f"{level['mean']:.4f} ± {level['sd']:.4f}" in text
    assert ".0625" in text and "five seeds give .0625 at best" in text


def test_same_results_same_bytes(planted: tuple[dict[str, Any], str, Path], tmp_path: Path) -> None:
    """The order of rows is no part of the results."""
    for name in ("results.parquet", "per_user.parquet"):
        frame = pl.read_parquet(planted[2].with_name(name))
        frame.reverse().write_parquet(tmp_path / name)
    _, page = told(tmp_path / "report", tmp_path / "results.parquet")
    assert page == planted[1]
    first, again = (write_evidence(tmp_path / name, planted[2]) for name in ("first", "again"))
    assert [path.name for path in first] == [path.name for path in again]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, again, strict=True))


def test_evidence_is_markdown_and_small_pictures(planted: tuple[dict[str, Any], str, Path], tmp_path: Path) -> None:
    document, *pictures = write_evidence(tmp_path, planted[2])
    text = document.read_text()
    assert document.name == "evaluation.md" and sorted(tmp_path.iterdir()) == sorted([document, *pictures])
    first = text.split("\n\n")[0].replace("\\*", "*")
    assert first == plain(f"**{planted[0]['opening']['headline']}.** {planted[0]['opening']['paragraph']}")
    assert not re.search(r"[^\\*]\*{1,3}[ |]", text.replace(".** ", "").replace("**\n", "")), (
        "a star that Markdown would take for emphasis"
    )
    for picture in pictures:
        assert f"]({picture.name})" in text and picture.stat().st_size < MOST_PNG_BYTES
        with Image.open(picture) as image:
            assert image.width > 500 and not image.info.get("Software")
            assert len(image.convert("L").getcolors() or []) > 4
    tables = [block for block in text.split("\n\n") if block.startswith("| ")]
    assert len(tables) >= 4
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


ALONE = {
    "raw alone": (Sample(levels={("vbpr", "raw", 0.0): 0.2}), "Nothing to compare: raw or rectified is missing"),
    "lightgcn alone": (
        Sample(levels={("lightgcn", "raw", 0.0): 0.2}),
        "Nothing to compare: raw or rectified is missing",
    ),
    "clean alone": (
        Sample(levels=curves("vbpr", raw=(0.2,), rectified=(0.21,), shares=(0.0,))),
        "Clean features: 2 of 2 metrics within 1 %",
    ),
    "damage without clean": (
        Sample(
            levels=curves("vbpr", raw=(0.1,), rectified=(0.15,), shares=(0.3,)),
            kind="noise",
            damaged="image",
            scatter=0.2,
        ),
        "Gain on 1 of 1 backbone under damage",
    ),
    "one seed": (
        Sample(levels=curves("vbpr", raw=(0.2, 0.1), rectified=(0.2, 0.15), shares=(0, 0.4)), seeds=(7,)),
        "Ahead of raw on 1 of 1",
    ),
    "two seeds": (
        Sample(levels=curves("vbpr", raw=(0.2, 0.1), rectified=(0.2, 0.11), shares=(0, 0.4)), seeds=(7, 8)),
        "Gain on 0 of 1",
    ),
    "nothing hit": (
        Sample(levels=curves("vbpr", raw=(0, 0), rectified=(0, 0), shares=(0, 0.4), controls={"smoothed": 0})),
        "Nothing to compare",
    ),
    "raw hits nothing": (
        Sample(levels=curves("vbpr", raw=(0, 0), rectified=(0.1, 0.1), shares=(0, 0.4), controls={"smoothed": 0.1})),
        "Nothing to compare",
    ),
}


@pytest.mark.parametrize("by_user", [True, False])
@pytest.mark.parametrize("name", list(ALONE))
def test_any_part_of_a_grid(tmp_path: Path, name: str, by_user: bool) -> None:
    sample, headline = ALONE[name]
    results = write(tmp_path, sample, by_user=by_user)
    twin, page = told(tmp_path / "report", results)
    if by_user:
        assert plain(twin["opening"]["headline"]).startswith(headline)
    assert PageText(page).text and write_evidence(tmp_path / "evidence", results)
    if not by_user:
        assert "no values by user" in twin["opening"]["paragraph"]
        assert all(x["test"] in (None, "wilcoxon") and x["relative"]["low"] is None for x in twin["comparisons"])


def test_what_few_seeds_can_say_is_said(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2, 0.1), rectified=(0.2, 0.15), shares=(0, 0.4), controls={"smoothed": 0.16})
    one, _ = told(tmp_path / "one", write(tmp_path, Sample(levels=levels, seeds=(7,), scatter=0.1)))
    assert "With one seed no test is possible" in one["opening"]["paragraph"]
    assert (
        "rectified is NOT ahead of plain smoothing" in one["opening"]["paragraph"]
        and "untested" in one["opening"]["paragraph"]
    )
    assert {x["verdict"] for x in one["comparisons"]} == {"untested"}
    five, _ = told(tmp_path / "five", write(tmp_path / "alone", Sample(levels=levels, scatter=0.1), by_user=False))
    assert "the Wilcoxon test across seeds, whose p cannot be below .0625 here" in five["opening"]["paragraph"]
    assert {x["verdict"] for x in five["comparisons"] if x["question"] == "damage"} == {"unclear"}
    two, _ = told(tmp_path / "two", write(tmp_path, Sample(levels=levels, seeds=(7, 8))))
    assert "With fewer than 5 seeds hardly any difference can be told from chance." in two["opening"]["paragraph"]


def test_a_backbone_that_nothing_moves_is_set_aside(tmp_path: Path) -> None:
    results = write(
        tmp_path, Sample(levels=curves("vbpr", raw=(0.2, 0.1), rectified=(0.2, 0.18), shares=(0, 0.4)), scatter=0.2)
    )
    frame, users = pl.read_parquet(results), pl.read_parquet(results.with_name("per_user.parquet"))
    for variant in ("raw", "rectified"):
        same = frame.filter((pl.col("variant") == "raw") & (pl.col("share") == 0.4))
        still = same.with_columns(
            backbone=pl.lit("mgcn"), variant=pl.lit(variant), cell=f"mgcn {variant} " + pl.col("cell")
        )
        rows = users.join(same.select("cell"), on="cell").with_columns(cell=f"mgcn {variant} " + pl.col("cell"))
        frame, users = pl.concat([frame, still]), pl.concat([users, rows])
    frame.write_parquet(results)
    users.write_parquet(results.with_name("per_user.parquet"))
    twin, _ = told(tmp_path / "report", results)
    assert twin["source"]["inert"] == ["mgcn"]
    assert "mgcn gave the same numbers on raw and rectified features" in twin["opening"]["paragraph"]
    assert "significant on 1 of 1 backbone: vbpr" in twin["opening"]["paragraph"]


def test_editing_curves_and_the_best_fixed_strength(tmp_path: Path) -> None:
    samples = []
    for share, levels in ((0.0, (0.2, 0.21, 0.19, 0.212)), (0.3, (0.15, 0.17, 0.14, 0.16))):
        names = ("none", "pruning_graph_0.1", "completion_train_0.1", "aligned")
        for editing, level in zip(names, levels, strict=True):
            noise = ("random", share) if share else ("none", 0.0)
            facts = {} if editing == "none" else {"edit_trust": 0.5}
            samples.append(
                Sample(levels={("lightgcn", "raw", 0.0): level}, noise=noise, editing=editing, scatter=0.1, facts=facts)
            )
    twin, page = told(tmp_path / "report", write(tmp_path, *samples))
    assert plain(twin["opening"]["headline"]) == "Edge editing: better in 4, worse in 2 of 6 comparisons"
    paragraph = twin["opening"]["paragraph"]
    assert "pruning graph 0.1 better in 2 and worse in 0 of 2" in paragraph
    assert "completion train 0.1 better in 0 and worse in 2 of 2" in paragraph
    assert re.search(
        r"Aligned editing IS worse than .* in 2 settings, on lightgcn \(−[56]\.\d.% against pruning graph 0\.1\)",
        paragraph,
    )
    best = found(twin, "aligned", "lightgcn", noise_share=0.3)
    assert best["editing_against"] == "pruning_graph_0.1" and best["relative"]["mean"] == pytest.approx(
        0.16 / 0.17 - 1, abs=0.01
    )
    assert [x.key for x in drawings(twin)] == ["editing-random"]
    text = plain(PageText(page).text)
    assert "Edge editing under random clicks" in text and "The editings themselves" in text


def test_rectified_on_noised_clicks_is_its_own_question(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2,), rectified=(0.2,), shares=(0.0,))
    noised = curves("vbpr", raw=(0.15,), rectified=(0.18,), shares=(0.0,))
    samples = (Sample(levels=levels, scatter=0.2), Sample(levels=noised, noise=("popular", 0.2), scatter=0.2))
    twin, _ = told(tmp_path / "report", write(tmp_path, *samples))
    assert len([x for x in twin["comparisons"] if x["question"] == "clean"]) == 2
    assert found(twin, "noised", "vbpr")["verdict"] == "better"
    assert (
        "better than raw in 1 and worse in 0 of 1 pair on noised or edited interactions" in twin["opening"]["paragraph"]
    )


def test_variants_and_sweeps(tmp_path: Path) -> None:
    levels = curves("vbpr", raw=(0.2, 0.12), rectified=(0.2, 0.18), shares=(0, 0.4))
    levels |= {
        ("vbpr", name, 0.4): level
        for name, level in (("tau_0.1", 0.17), ("tau_0.05", 0.16), ("tau_1", 0.18), ("row_<b>", 0.15))
    }
    twin, page = told(tmp_path / "report", write(tmp_path, Sample(levels=levels, scatter=0.2)))
    assert [x.key for x in drawings(twin)] == ["clean", "stress-swap-all", "variants", "sweep-tau"]
    assert found(twin, "variant", "vbpr", variant="row_<b>")["verdict"] == "worse"
    assert "row <b>" in PageText(page).text and "<b>row" not in page and "row <b>" not in page
    names = [x["variant"] for x in twin["comparisons"] if x["question"] == "variant"]
    assert names == ["row_<b>", "tau_0.05", "tau_0.1", "tau_1"]
    assert sweep_of("num_neighbours-10") == sweep_of("num_neighbours=10") == ("num_neighbours", "10")
    assert sweep_of("crossfit") is None


def test_a_cell_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    results = write(tmp_path, Sample(levels=curves("vbpr", raw=(0.2,), rectified=(0.21,), shares=(0.0,))))
    frame = pl.read_parquet(results)
    pl.concat([frame, frame.head(3).with_columns(cell="z " + pl.col("cell"))]).write_parquet(results)
    twin, _ = told(tmp_path / "report", results)
    assert (twin["source"]["cells"], twin["source"]["repeats"]) == (10, 3)


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
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
    shutil.copy(__file__, results)
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        write_evaluation_report(tmp_path, results)


def test_a_folder_that_cannot_be_written_is_named(planted: tuple[dict[str, Any], str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"evaluation: writing .*file.* failed"):
        write_evaluation_report(tmp_path / "file" / "report", planted[2])
