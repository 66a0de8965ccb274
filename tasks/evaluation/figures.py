"""The pictures of an evaluation: Recall@20 against the share of damage, after the paper's Figure 2."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import style
from matplotlib.figure import Figure

from tasks.evaluation.config import NONE
from tasks.evaluation.grid import RAW, RECTIFIED
from tasks.evaluation.results import CONTROLS, RECALL
from tasks.evaluation.tables import Facts, setting_name

MARKERS = "os^Dvp*X<>"
MOST_COLUMNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """``key`` is the file name without its suffix."""

    key: str
    title: str
    png: bytes

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_bytes(self.png)


def pictures(facts: Facts) -> list[Picture]:
    """A picture for each kind of damage, and one for each kind of noise in the interactions or edge editing."""
    return [*_stress(facts["conditions"]), *_edited(facts["conditions"])]


def _stress(conditions: Sequence[Facts]) -> list[Picture]:
    shown = [x for x in conditions if _plain(x) and x["variant"] in (RAW, RECTIFIED, *CONTROLS)]
    made = []
    for kind, damaged in dict.fromkeys((x["kind"], x["damaged"]) for x in shown if x["share"]):
        here = [x for x in shown if not x["share"] or (x["kind"], x["damaged"]) == (kind, damaged)]
        made.append(
            Picture(
                key=f"stress-{kind}-{damaged}",
                title=f"Recall@20 as {damaged} features are damaged ({kind})",
                png=_curves(here, "share", "items with a damaged feature, %", lambda x: str(x["variant"])),
            )
        )
    return made


def _edited(conditions: Sequence[Facts]) -> list[Picture]:
    made = []
    damages = dict.fromkeys((x["kind"], x["damaged"], x["share"]) for x in conditions if not _plain(x))
    for damage in damages:
        same = [x for x in conditions if (x["kind"], x["damaged"], x["share"]) == damage]
        suffix = f"-{damage[0]}-{damage[1]}-{damage[2]:g}" if damage[2] else ""
        for noise in dict.fromkeys(x["noise_kind"] for x in same if x["noise_share"]) or [NONE]:
            here = [x for x in same if x["noise_kind"] in (NONE, noise)]
            features = setting_name({**here[0], "noise_share": 0, "editing": NONE})
            made.append(
                Picture(
                    key=f"editing-{noise}{suffix}",
                    title=f"Recall@20 as {noise} clicks are added ({features})",
                    png=_curves(here, "noise_share", "clicks added, % of the training pairs", _edited_name),
                )
            )
    return made


def _edited_name(x: Facts) -> str:
    return f"{x['variant']}, editing {x['editing']}"


def _plain(x: Facts) -> bool:
    return not x["noise_share"] and x["editing"] == NONE


def _curves(conditions: Sequence[Facts], by: str, label: str, name: Callable[[Facts], str]) -> bytes:
    """A panel a backbone and a curve for each ``name``: mean and standard deviation over seeds. Backbones without a curve are left out."""
    places: dict[str, set[float]] = {}
    for x in conditions:
        places.setdefault(x["backbone"], set()).add(x[by])
    backbones = [x for x in places if len(places[x]) > 1] or list(places)
    names = list(dict.fromkeys(map(name, conditions)))
    columns = min(MOST_COLUMNS, len(backbones))
    rows = math.ceil(len(backbones) / columns)
    with style.context("default"):
        figure = Figure(figsize=(3.6 * columns + 0.4, 2.6 * rows + 0.5), layout="constrained")
        panels: Any = figure.subplots(rows, columns, squeeze=False)
        for at, backbone in enumerate(backbones):
            axes = panels[at // columns][at % columns]
            for order, curve in enumerate(names):
                points = [x for x in conditions if x["backbone"] == backbone and name(x) == curve]
                points.sort(key=lambda x: x[by])
                axes.errorbar(
                    [100 * x[by] for x in points],
                    [x["metrics"][RECALL]["mean"] for x in points],
                    yerr=[x["metrics"][RECALL]["sd"] or 0 for x in points],
                    marker=MARKERS[order % len(MARKERS)],
                    color=f"C{order % 10}",
                    markersize=4,
                    capsize=2,
                    label=curve.replace("_", " ").removesuffix(", editing none"),
                )
            axes.set(title=backbone, xlabel=label, ylabel="Recall@20")
        for empty in panels.flat[len(backbones) :]:
            empty.set_axis_off()
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=4, fontsize="small")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
