"""The pictures of an evaluation, after the paper's Table 2, Figure 2 and Figure 5: a pure function of the report's facts.

Each is drawn twice from one function: as inline SVG in the page's colours, and as a PNG for documents. Error bars are the standard
deviation over seeds where a level is shown, and 95 % intervals where a change is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tasks.evaluation.comparisons import CLEAN, CONTROL, CONTROL_GAIN, DAMAGE
from tasks.evaluation.conditions import CONTROLS, RAW, RECALL, RECTIFIED
from tasks.evaluation.panels import Colours, Dots, Figure, Mark, Points, Styled, dot_panels, line_panels
from tasks.evaluation.phrases import (
    amount_label,
    amount_phrase,
    damage_phrase,
    editing_name,
    metric_name,
    noise_name,
    variant_name,
    whole_percent,
)
from tasks.report.summaries import Facts

SWEEP = re.compile(r"(?P<key>[A-Za-z][\w.]*?)(?:=(?P<text>.+)|[-_](?P<number>\d[\d.]*(?:e-?\d+)?))")
_STYLES = {
    RAW: ("grey", "o", (0, (1.2, 1.2))),
    RECTIFIED: ("blue", "o", "-"),
    "smoothed": ("orange", "s", (0, (5, 1.6))),
    "smoothed_by_anchors": ("gold", "v", (0, (5, 1.4, 1.2, 1.4))),
    "shuffled_anchors": ("green", "^", (0, (3, 1.4))),
    "anchors_appended": ("purple", "D", (0, (7, 1.6, 1.2, 1.6))),
}
_CYCLE = ("blue", "orange", "green", "purple", "gold", "ink", "grey")
_MARKERS = "os^Dvp*X<>"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One picture: ``key`` names it (and its file), ``draw`` makes it in the given colours."""

    key: str
    title: str
    caption: str
    draw: Callable[[Colours], Figure]


def drawings(facts: Facts) -> list[Drawing]:
    """Every picture that the facts have something for, in the order of the report."""
    makers = (_clean, _stress, _controls, _variants, _sweeps, _editing)
    return [drawing for make in makers for drawing in make(facts)]


def sweep_of(variant: str) -> tuple[str, str] | None:
    """``(key, value)`` of a variant that sets one key, such as ``num_neighbours=5``, ``num_neighbours-5`` or ``num_neighbours_5``."""
    found = SWEEP.fullmatch(variant)
    return (found["key"], found["text"] or found["number"]) if found else None


def _clean(facts: Facts) -> Iterator[Drawing]:
    found = [x for x in facts["comparisons"] if x["question"] == CLEAN and _plain(x) and _has_change(x)]
    if not found:
        return
    rows = _backbones(facts, found)
    metrics = list(dict.fromkeys(x["metric"] for x in found))
    series = [
        (metric_name(metric), _cycled(at), {x["backbone"]: _change(x) for x in found if x["metric"] == metric})
        for at, metric in enumerate(metrics)
    ]
    yield Drawing(
        key="clean",
        title="Clean features: what rectification changes",
        caption="Relative change from raw to rectified with 95 % intervals over users and seeds, after the paper's Table 2. "
        "The dashed line is the 1 % loss that may not be passed.",
        draw=partial(
            dot_panels,
            panels=[("", series)],
            rows=rows,
            xlabel="change from raw to rectified, %",
            marks=(Mark(0), Mark(-1, "1 % loss")),
        ),
    )


def _stress(facts: Facts) -> Iterator[Drawing]:
    shown = (RAW, RECTIFIED, *CONTROLS)
    plain = [x for x in facts["conditions"] if _plain(x) and x["variant"] in shown]
    for kind, damaged in _damages(plain):
        here = [x for x in plain if not x["kind"] or (x["kind"], x["damaged"]) == (kind, damaged)]
        damaged_there = {x["variant"] for x in here if x["kind"]}
        panels = []
        for backbone in _backbones(facts, [x for x in here if x["kind"]]):
            own = [x for x in here if x["backbone"] == backbone and x["variant"] in damaged_there]
            series = [
                (variant_name(v), _STYLES[v], _curve([x for x in own if x["variant"] == v], "share")) for v in shown
            ]
            panels.append((backbone, [x for x in series if x[2]]))
        yield Drawing(
            key=f"stress-{kind}-{damaged}",
            title=f"Stress: {damage_phrase({'kind': kind, 'damaged': damaged})}",
            caption="Recall@20 against the share of damaged items, mean and standard deviation over seeds, after the paper's Figure 2.",
            draw=partial(line_panels, panels=panels, xlabel="items with a damaged feature, %", ylabel="Recall@20"),
        )


def _controls(facts: Facts) -> Iterator[Drawing]:
    plain = [x for x in facts["comparisons"] if _plain(x) and x["metric"] == RECALL and _has_change(x)]
    if not any(x["question"] == CONTROL for x in plain):
        return
    for kind, damaged in _damages([x for x in plain if x["question"] == CONTROL_GAIN]) or [("", "")]:
        here = [x for x in plain if not x["kind"] or (x["kind"], x["damaged"]) == (kind, damaged)]
        controlled = [x for x in here if x["question"] == CONTROL_GAIN]
        shares = sorted({x["share"] for x in controlled})
        if not shares:
            continue
        shares = shares if len(shares) <= 3 else [shares[0], shares[len(shares) // 2], shares[-1]]
        rows, panels = _backbones(facts, controlled), []
        for share in shares:
            there = {x["backbone"] for x in controlled if x["share"] == share}
            gains = [
                x
                for x in here
                if x["share"] == share and x["backbone"] in there and x["question"] in (CLEAN, DAMAGE, CONTROL_GAIN)
            ]
            series = [
                (variant_name(v), _STYLES[v], {x["backbone"]: _change(x) for x in gains if x["variant"] == v})
                for v in _STYLES
            ]
            title = f"{whole_percent(share)} of the items damaged" if share else "features as they came"
            panels.append((title, [x for x in series if x[2]]))
        yield Drawing(
            key=f"controls-{kind}-{damaged}" if kind else "controls",
            title=f"Controls: {damage_phrase({'kind': kind, 'damaged': damaged})}",
            caption="Gain over raw in Recall@20 with 95 % intervals. Rectification must lie to the right of every control, or it corrects "
            "nothing that smoothing or appending would not.",
            draw=partial(dot_panels, panels=panels, rows=rows, xlabel="gain over raw, %", marks=(Mark(0),)),
        )


def _variants(facts: Facts) -> Iterator[Drawing]:
    conditions = [x for x in facts["conditions"] if _plain(x)]
    swept = _sweep_keys(conditions)
    others = [
        x["variant"]
        for x in conditions
        if x["variant"] not in _STYLES and (sweep_of(x["variant"]) or ("",))[0] not in swept
    ]
    if not others:
        return
    names = list(dict.fromkeys((RAW, RECTIFIED, *others)))
    rows = [variant_name(x) for x in names]
    own = [x for x in conditions if x["variant"] in names]
    levels = _levels([x for x in own if x["variant"] in others])
    panels = []
    for backbone in _backbones(facts, [x for x in own if x["variant"] in others]):
        mine = [x for x in own if x["backbone"] == backbone]
        series = []
        for at, level in enumerate(levels):
            dots: Dots = {variant_name(x["variant"]): _around(x) for x in mine if _same_damage(x, level)}
            series.append((amount_label(level), _cycled(at), dots))
        panels.append((backbone, [x for x in series if x[2]]))
    yield Drawing(
        key="variants",
        title="Variants of the rectifier",
        caption="Recall@20, mean and standard deviation over seeds; what else a variant changes is in the tables. Sinkhorn against row "
        "normalisation is the paper's Figure 5.",
        draw=partial(dot_panels, panels=panels, rows=rows, xlabel="Recall@20", marks=()),
    )


def _sweeps(facts: Facts) -> Iterator[Drawing]:
    conditions = [x for x in facts["conditions"] if _plain(x)]
    for key in _sweep_keys(conditions):
        own = [x for x in conditions if (sweep_of(x["variant"]) or ("",))[0] == key]
        values = sorted({sweep_of(x["variant"])[1] for x in own}, key=_by_number)  # type: ignore[index]
        ticks = ["default", *values]
        panels = []
        for backbone in _backbones(facts, own):
            mine = [x for x in own if x["backbone"] == backbone]
            default = [x for x in conditions if x["backbone"] == backbone and x["variant"] == RECTIFIED]
            series: list[tuple[str, Styled, Points]] = []
            for at, level in enumerate(_levels(own)):
                points = [(0, x) for x in default if _same_damage(x, level)]
                points += [(ticks.index(sweep_of(x["variant"])[1]), x) for x in mine if _same_damage(x, level)]  # type: ignore[index]
                series.append(
                    (
                        amount_label(level),
                        _cycled(at),
                        [(place, *_level(x)) for place, x in sorted(points, key=lambda y: y[0])],
                    )
                )
            panels.append((backbone, [x for x in series if x[2]]))
        yield Drawing(
            key=f"sweep-{key}",
            title=f"Sweep of {key}",
            caption="Recall@20, mean and standard deviation over seeds, with everything else as in the default.",
            draw=partial(line_panels, panels=panels, xlabel=key, ylabel="Recall@20", ticks=ticks, joined=False),
        )


def _editing(facts: Facts) -> Iterator[Drawing]:
    """A picture for each kind of clicks and amount of damage; where none were added, the curves are single points."""
    conditions = facts["conditions"]
    concerned = [x for x in conditions if x["editing"] or x["noise_kind"]]
    kinds = list(dict.fromkeys(x["noise_kind"] for x in concerned if x["noise_kind"])) or [""]
    for level in _levels(concerned):
        for kind in kinds:
            here = [x for x in conditions if _same_damage(x, level) and x["noise_kind"] in ("", kind)]
            shown = [x for x in here if x["editing"] or x["noise_kind"]]
            if not shown:
                continue
            noise = noise_name(kind) if kind else "clicks"
            damage = f"-{level['kind']}-{level['damaged']}-{level['share']:g}" if level["kind"] else ""
            yield Drawing(
                key=re.sub(r"[^\w.-]+", "-", f"editing-{kind or 'clean'}{damage}"),
                title=f"Edge editing under {noise}" if kind else "Edge editing",
                caption=f"Recall@20 against clicks that nobody made; {amount_phrase(level)}. Mean and standard deviation over seeds.",
                draw=partial(
                    line_panels,
                    panels=_editing_panels(facts, here, shown),
                    xlabel=f"{noise} added, % of the training pairs",
                    ylabel="Recall@20",
                ),
            )


def _editing_panels(facts: Facts, here: Sequence[Facts], shown: Sequence[Facts]) -> list[Any]:
    variants = list(dict.fromkeys(x["variant"] for x in shown))
    editings = ["", *sorted({x["editing"] for x in shown} - {""})]
    names = [(variant, editing) for variant in variants for editing in editings]
    panels = []
    for backbone in _backbones(facts, shown):
        series = []
        for pair in names:
            curve = _curve(
                [x for x in here if x["backbone"] == backbone and (x["variant"], x["editing"]) == pair], "noise_share"
            )
            colour, marker, dashes = _cycled(editings.index(pair[1]))
            styled = (
                (colour, marker, _DASHES[variants.index(pair[0]) % len(_DASHES)])
                if len(variants) > 1
                else (colour, marker, dashes)
            )
            series.append((_edited_name(*pair, several=len(variants) > 1), styled, curve))
        panels.append((backbone, [x for x in series if x[2]]))
    return panels


def _edited_name(variant: str, editing: str, *, several: bool) -> str:
    """The features are named only where the picture has more than one kind of them."""
    return f"{variant_name(variant)}, {editing_name(editing)}" if several else editing_name(editing)


def _plain(x: Facts) -> bool:
    return not x["noise_kind"] and not x["editing"]


def _damages(found: Sequence[Facts]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((x["kind"], x["damaged"]) for x in found if x["kind"]))


def _levels(found: Sequence[Facts]) -> list[Facts]:
    """The different amounts of damage, least first."""
    keys = sorted({(x["share"], x["kind"], x["damaged"]) for x in found})
    return [{"share": share, "kind": kind, "damaged": damaged} for share, kind, damaged in keys]


def _same_damage(x: Facts, level: Facts) -> bool:
    return all(x[name] == level[name] for name in level)


def _backbones(facts: Facts, found: Sequence[Facts]) -> list[str]:
    there = {x["backbone"] for x in found}
    return [name for name in facts["source"]["backbones"] if name in there]


def _sweep_keys(conditions: Sequence[Facts]) -> list[str]:
    """Keys that at least two variants set, each differently."""
    found = dict.fromkeys(sweep for x in conditions if (sweep := sweep_of(x["variant"])))
    keys = [key for key, _ in found]
    return [key for key in dict.fromkeys(keys) if keys.count(key) > 1]


def _by_number(value: str) -> tuple[float, str]:
    try:
        return float(value), value
    except ValueError:
        return float("inf"), value


def _cycled(at: int) -> tuple[str, str, Any]:
    return _CYCLE[at % len(_CYCLE)], _MARKERS[at % len(_MARKERS)], _DASHES[at % len(_DASHES)]


def _change(x: Facts) -> tuple[float, float | None, float | None]:
    """A relative change in percent with the ends of its interval."""
    found = x["relative"]
    return tuple(None if found[name] is None else 100 * found[name] for name in ("mean", "low", "high"))  # type: ignore[return-value]


def _level(x: Facts) -> tuple[float, float]:
    """Recall@20: mean and standard deviation over seeds, 0 with one seed."""
    found = x["metrics"][RECALL]
    return found["mean"], found["sd"] or 0.0


def _has_change(x: Facts) -> bool:
    return x["relative"]["mean"] is not None


def _around(x: Facts) -> tuple[float, float, float]:
    mean, sd = _level(x)
    return mean, mean - sd, mean + sd


def _curve(found: Sequence[Facts], by: str) -> list[tuple[float, float, float]]:
    return [(100 * x[by], *_level(x)) for x in sorted(found, key=lambda x: x[by])]
