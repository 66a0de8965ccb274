"""The page of ``downstream``: levels, paired differences and chosen settings as Markdown, from its lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rectifier_core.base.arrays import Float64
from rectifier_core.evaluation.significance import Estimate, holm, mean_estimate, relative_change

REFERENCE, POOLED = "lightgcn", "mean of the recommenders"
VARIANTS = ("raw", "rectified", "anchors_appended", "rectified_anchors_appended")
COMPARED = {"rectified - raw": ("rectified", "raw"), "rectified + anchors - raw + anchors": (VARIANTS[3], VARIANTS[2])}
SHARES = (0.0, 0.4)
LEVEL = 0.05
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A paired comparison of two kinds of feature in one cell, with p after Holm's correction."""

    question: str
    catalog: str
    backbone: str
    share: float
    difference: Estimate
    relative: Estimate | None
    p: float
    same: bool
    below: bool

    @property
    def verdict(self) -> str:
        """What the comparison shows."""
        if self.below:
            return "below popularity: no verdict"
        if self.same:
            return "the same features"
        if self.p < LEVEL:
            return "above" if self.difference.mean > 0 else "**below**"
        return "within chance"


class Cells:
    """The trained cells, and the seeds for which all cells of all catalogs are there."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.cells = {
            (x["catalog"], x["backbone"], x["variant"], x["share"], x["seed"]): x for x in rows if x["kind"] == "cell"
        }
        self.catalogs = list(dict.fromkeys(key[0] for key in self.cells))
        self.backbones = [x for x in dict.fromkeys(key[1] for key in self.cells) if x != REFERENCE]
        numbers = sorted({key[4] for key in self.cells})
        whole = [x for x in numbers if all(self._whole(name, x) for name in self.catalogs)]
        self.seeds = dict.fromkeys(self.catalogs, whole)

    def _whole(self, name: str, seed: int) -> bool:
        wanted = [(name, b, v, s, seed) for b in self.backbones for v in VARIANTS for s in SHARES]
        return all(key in self.cells for key in [*wanted, (name, REFERENCE, "raw", 0.0, seed)])

    def values(self, name: str, backbone: str, variant: str, share: float, key: str = "recall") -> Float64:
        """``key`` by seed: [S], or [S, N] of the users. ``POOLED`` is the mean over the recommenders."""
        if backbone == POOLED:
            return np.mean([self.values(name, x, variant, share, key) for x in self.backbones], axis=0)
        return np.array([self.cells[name, backbone, variant, share, seed][key] for seed in self.seeds[name]])

    def features(self, name: str, variant: str, share: float) -> list[str]:
        """The digest of the features that every recommender reads, by seed."""
        return [str(self.cells[name, self.backbones[0], variant, share, x]["features"]) for x in self.seeds[name]]

    def below(self, name: str, backbone: str, variant: str = "raw", share: float = 0.0) -> bool:
        """Whether a cell's mean is below popularity."""
        own, popular = (self.values(name, backbone, variant, share, key).mean() for key in ("recall", "popularity"))
        return bool(own < popular)


def compare(cells: Cells, backbones: Sequence[str]) -> list[Compared]:
    """Every comparison; p is corrected within a question and a share, over catalogs and ``backbones``."""
    found = []
    for question, (a, b) in COMPARED.items():
        for share in SHARES:
            at = [(name, backbone) for name in cells.catalogs for backbone in backbones if cells.seeds[name]]
            sides = [[cells.values(*x, variant, share, "per_user") for variant in (a, b)] for x in at]
            differences = [mean_estimate(x - y) for x, y in sides]
            corrected = holm([np.nan if cells.below(*x) else d.p for x, d in zip(at, differences, strict=True)])
            for (name, backbone), (x, y), d, p in zip(at, sides, differences, corrected, strict=True):
                usable = not cells.below(name, backbone, b, share)
                found.append(
                    Compared(
                        question=question,
                        catalog=name,
                        backbone=backbone,
                        share=share,
                        difference=d,
                        relative=relative_change(x, y) if usable else None,
                        p=float(p),
                        same=cells.features(name, a, share) == cells.features(name, b, share),
                        below=cells.below(name, backbone),
                    )
                )
    return found


def bars(found: Sequence[Compared]) -> Iterator[str]:
    """One line a bar: in how many cells it holds, and where it does not."""
    for question in COMPARED:
        for share in SHARES:
            here = [x for x in found if (x.question, x.share) == (question, share) and not x.below]
            least = sum(x.difference.mean >= 0 for x in here)
            above, below = (
                [
                    f"{x.catalog} {x.backbone}"
                    for x in here
                    if not x.same and x.p < LEVEL and sign * x.difference.mean > 0
                ]
                for sign in (1, -1)
            )
            lower = [f"{x.catalog} {x.backbone} ({x.difference.mean:+.4f})" for x in here if x.difference.mean < 0]
            yield (
                f"- {question}, {_share(share)}: mean at least equal in {least} of {len(here)} cells"
                f" ({sum(x.same for x in here)} with the very same features); significantly above in {len(above)}"
                f"{_named(above)}, significantly below in {len(below)}{_named(below)}; lower mean: {', '.join(lower) or 'none'}."
            )


def _named(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _share(share: float) -> str:
    return f"{share:.0%} swapped".replace("%", " %") if share else "clean"


def _level(values: Float64) -> str:
    deviation = f" ± {values.std(ddof=1):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{deviation}"


def print_levels(cells: Cells) -> None:
    """Mean and standard deviation of Recall@20 over seeds."""
    head = (
        "catalog",
        "recommender",
        "swapped",
        *(x.replace("rectified_anchors", "rectified + anchors").replace("_", " ") for x in VARIANTS),
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for name in (x for x in cells.catalogs if cells.seeds[x]):
        for reference in ("chance", "popularity"):
            print(
                f"| {name} | {reference} | | {_level(cells.values(name, REFERENCE, 'raw', 0.0, reference)[:1])} | | | |"
            )
        print(f"| {name} | LightGCN, ids only | | {_level(cells.values(name, REFERENCE, 'raw', 0.0))} | | | |")
        for backbone in cells.backbones:
            for share in SHARES:
                shown = " | ".join(_level(cells.values(name, backbone, variant, share)) for variant in VARIANTS)
                print(f"| {name} | {backbone} | {_share(share)} | {shown} |")


def print_comparisons(found: Sequence[Compared], title: str) -> None:
    """The paired differences, question by question."""
    for question in COMPARED:
        print(f"\n## {title}{question}\n")
        print(
            "| catalog | recommender | swapped | difference (95 % interval) | relative | p, corrected | |\n|---|---|---|---|---|---|---|"
        )
        for x in found:
            if x.question == question:
                d, relative = x.difference, "" if x.relative is None or x.below else f"{100 * x.relative.mean:+.1f} %"
                p = "" if x.below or x.same else f"{x.p:.3f}"
                print(
                    f"| {x.catalog} | {x.backbone} | {_share(x.share)} | {d.mean:+.4f} ({d.low:+.4f} to {d.high:+.4f}) | {relative} | {p} |"
                    f" {x.verdict} |"
                )


def print_changed(cells: Cells) -> None:
    """The share of the rows that rectification changes by .001 or more, and the estimated mismatch rate, by modality."""
    print("\n## How much rectification changes\n")
    print("Share of the rows that move by .001 or more (1 - cosine), and estimated mismatch rate, mean over seeds.\n")
    print("| catalog | swapped | modality | rows changed | mismatch rate |\n|---|---|---|---|---|")
    for name in (x for x in cells.catalogs if cells.seeds[x]):
        for share in SHARES:
            facts = [cells.cells[name, cells.backbones[0], "rectified", share, x]["facts"] for x in cells.seeds[name]]
            for m in (x.removeprefix("rectified_share_") for x in facts[0] if x.startswith("rectified_share_")):
                changed, rate = (
                    np.nanmean([x[f"{y}_{m}"] for x in facts]) for y in ("rectified_share", "mismatch_rate")
                )
                print(f"| {name} | {_share(share)} | {m} | {100 * changed:.1f} % | {rate:.3f} |")


def print_searches(rows: Sequence[Row]) -> None:
    """What the searches chose, beside what the recommender's own setting reached."""
    print("\n## Settings chosen on validation pairs\n")
    head = (
        "catalog",
        "recommender",
        "learning rate",
        "weight decay",
        "validation",
        "its own setting",
        "validation of it",
        "at the edge",
    )
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for x in (x for x in rows if x["kind"] == "search"):
        setting = [
            ["" if y[k] is None else f"{y[k]:g}" for k in ("learning_rate", "weight_decay")]
            for y in (x["chosen"], x["own"])
        ]
        scores = [f"{y['score']:.4f}" for y in (x["chosen"], x["own"])]
        own = ", ".join(filter(None, setting[1]))
        cells = (x["catalog"], x["backbone"], *setting[0], scores[0], own, scores[1], "; ".join(x["edges"]))
        print(f"| {' | '.join(cells)} |")


def print_tables(rows: Sequence[Row], notes: str) -> None:
    """Print the page: the bars, the levels, the differences and the settings."""
    cells = Cells(rows)
    found = compare(cells, cells.backbones)
    print(f"# What recommenders gain from rectified features\n\n{notes}\n")
    finished = next(iter(cells.seeds.values()))
    print(f"Seeds that are finished for every cell of every catalog: {', '.join(map(str, finished))}.\n")
    print("\n".join(bars(found)))
    print("\n## Recall@20, mean ± standard deviation over seeds\n")
    print_levels(cells)
    print_comparisons(found, "")
    print_comparisons(compare(cells, [POOLED]), "All recommenders together: ")
    print_changed(cells)
    print_searches(rows)
