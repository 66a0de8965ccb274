"""The paragraph that opens an evaluation's report, and a line for each backbone: what the numbers show, and what they do not."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.evaluation.comparisons import ALIGNED, CLEAN, CONTROL, DAMAGE, EDITING, NOISED, in_focus
from tasks.evaluation.conditions import RECALL
from tasks.evaluation.phrases import (
    CLEAN_LABEL,
    amount_label,
    amount_phrase,
    damage_phrase,
    editing_name,
    listed,
    marked,
    metric_name,
    p_phrase,
    seeds_p,
    share_with_interval,
    signed,
    variant_name,
    whole_percent,
    with_interval,
)
from tasks.report.phrases import count, plural
from tasks.report.summaries import Facts

MOST_CLEAN_LOSS = 0.01
HALF = 0.5
FEW_SEEDS = 5
_NO_BREAK = "\u00a0"


def opening(facts: Facts) -> Facts:
    """``{outcome, headline, paragraph, lines [{backbone, text}]}``: what the grid shows, by the comparisons and the focus in ``facts``."""
    focus = facts["focus"]
    clean = _select(facts, CLEAN)
    damage = [x for x in _select(facts, DAMAGE) if in_focus(x, focus)]
    every_control = _select(facts, CONTROL)
    controls = [x for x in every_control if in_focus(x, focus)]
    sentences = [
        _grid_sentence(facts),
        _clean_sentence(clean),
        _damage_sentence(damage),
        _recovered_sentence(damage),
        _control_sentence(controls),
        _elsewhere_sentence([x for x in every_control if x not in controls], focus),
        _inert_sentence(facts),
    ]
    edited = _edited(facts, EDITING)
    if edited and not (clean or damage or controls):
        sentences = [_grid_sentence(facts)]
    sentences += [
        _noised_sentence(_edited(facts, NOISED)),
        _editing_sentence(edited),
        _aligned_sentence(_edited(facts, ALIGNED)),
    ]
    backbones = facts["source"]["backbones"]
    return {
        "outcome": _outcome(clean, damage, controls),
        "headline": _headline(clean, damage, controls, edited),
        "paragraph": " ".join(x for x in sentences if x),
        "lines": [{"backbone": name, "text": text} for name in backbones if (text := _line(name, facts))],
    }


def _select(facts: Facts, question: str) -> list[Facts]:
    """The comparisons of a question on interactions as they came, for the backbones that features can move."""
    inert = facts["source"]["inert"]
    plain = [x for x in facts["comparisons"] if x["question"] == question and not x["noise_kind"] and not x["editing"]]
    return [x for x in plain if x["backbone"] not in inert and x["relative"]["mean"] is not None]


def _edited(facts: Facts, question: str) -> list[Facts]:
    return [x for x in facts["comparisons"] if x["question"] == question and x["relative"]["mean"] is not None]


def _named(facts: Sequence[Facts]) -> str:
    return listed(f"{x['backbone']} ({signed(x['relative']['mean'])})" for x in facts)


def _grid_sentence(facts: Facts) -> str:
    source = facts["source"]
    seeds = f"{plural(source['seeds'], 'seed')} at most" if source["uneven_seeds"] else plural(source["seeds"], "seed")
    said = f"{plural(len(source['backbones']), 'backbone')}, {seeds}, {plural(source['cells'], 'cell')}"
    said += f", {count(source['users'])} test users." if source["users"] else "; no values by user."
    if source["seeds"] == 1:
        return said + " With one seed no test is possible: intervals speak of the users alone, not of another training."
    if 1 < source["seeds"] < FEW_SEEDS:
        said += f" With fewer than {FEW_SEEDS} seeds hardly any difference can be told from chance."
    if not source["users"]:
        smallest = 2.0 ** (1 - source["seeds"])
        said += f" So the only test is the Wilcoxon test across seeds, whose p cannot be below {seeds_p(smallest)} here, before correction."
    return said


def _clean_sentence(clean: list[Facts]) -> str:
    if not clean:
        return "On features as they came there is no pair of raw and rectified to compare."
    worst = min(clean, key=lambda x: x["relative"]["mean"])
    losers = [x for x in clean if x["relative"]["mean"] < -MOST_CLEAN_LOSS]
    if losers:
        lost = listed(
            f"{x['backbone']} {metric_name(x['metric'])} {with_interval(x['relative'])}, {p_phrase(x)}" for x in losers
        )
        return f"On clean features rectification costs more than 1{_NO_BREAK}%: {lost}."
    said = f"On clean features no backbone loses more than 1{_NO_BREAK}% from rectification"
    if worst["relative"]["mean"] < 0:
        said += f" (the worst: {worst['backbone']} {metric_name(worst['metric'])} {signed(worst['relative']['mean'])}, {p_phrase(worst)})"
    unsure = [x for x in clean if x["relative"]["low"] is not None and x["relative"]["low"] < -MOST_CLEAN_LOSS]
    if unsure:
        names = listed(dict.fromkeys(x["backbone"] for x in unsure))
        least = min(x["relative"]["low"] for x in unsure)
        said += f", though a larger loss is not excluded for {names} (intervals down to {signed(least)})"
    return said + "."


def _damage_sentence(damage: list[Facts]) -> str:
    if not damage:
        return "There is no pair of raw and rectified on damaged features."
    with_damage = f"With {amount_phrase(damage[0])}"
    if all(x["verdict"] == "untested" for x in damage):
        return f"{with_damage}, rectified against raw in Recall@20, untested: {_named(damage)}."
    better, worse = ([x for x in damage if x["verdict"] == verdict] for verdict in ("better", "worse"))
    rest = [x for x in damage if x["verdict"] not in ("better", "worse")]
    of = f"{len(better)} of {plural(len(damage), 'backbone')}"
    said = [
        f"the gain of rectified over raw in Recall@20 is positive and significant on {of}"
        + (f": {_named(better)}" if better else "")
    ]
    if rest:
        said.append(f"not told from chance on {_named(rest)}")
    if worse:
        said.append(f"a significant loss on {_named(worse)}")
    return f"{with_damage}, {'; '.join(said)}."


def _recovered_sentence(damage: list[Facts]) -> str:
    asked = [x for x in damage if x["cost"] is not None]
    told = [x for x in asked if x["recovered"] is not None]
    untold = [x["backbone"] for x in asked if x["recovered"] is None]
    said = []
    if told:
        half = sum(x["recovered"]["mean"] >= HALF for x in told)
        each = listed(f"{x['backbone']} {share_with_interval(x['recovered'])}" for x in told)
        said.append(
            f"Of what the damage cost, at least half is won back on {half} of {plural(len(told), 'backbone')}: {each}."
        )
    if untold:
        said.append(f"On {listed(untold)} the damage cost nothing measurable, so there is nothing to win back.")
    return " ".join(said)


def _control_sentence(controls: list[Facts]) -> str:
    if not controls:
        return "No control was measured, so nothing here tells correction from mere smoothing."
    where = (
        f"Against the controls, with {amount_phrase(controls[0])}"
        if controls[0]["kind"]
        else "Against the controls, on clean features"
    )
    names = list(dict.fromkeys(x["against"] for x in controls))
    short = [x for x in controls if not _exceeded(x)]
    if all(x["verdict"] == "untested" for x in controls):
        told = f"is NOT ahead of {_by_backbone(short)}" if short else "is ahead of every one"
        return f"{where}, rectified {told}, by the means alone, untested."
    if not short:
        return f"{where}, rectified exceeds every one ({listed(map(variant_name, names))}) on every backbone where it was measured."
    beaten, unclear = ([x for x in short if (x["verdict"] == "worse") == lost] for lost in (True, False))
    said = [f"does worse than {_by_backbone(beaten)}"] if beaten else []
    said += [f"cannot be told from {_by_backbone(unclear)}"] if unclear else []
    exceeded = [variant_name(n) for n in names if all(_exceeded(x) for x in controls if x["against"] == n)]
    rest = f" It exceeds {listed(exceeded)} on every backbone measured." if exceeded else ""
    return f"{where}, rectified does NOT exceed every one: it {', and it '.join(said)}.{rest}"


def _elsewhere_sentence(controls: list[Facts], focus: Facts) -> str:
    """The controls that are not exceeded at amounts of damage other than the one the paragraph speaks of."""
    short = [x for x in controls if not _exceeded(x)]
    if not controls:
        return ""
    if not short:
        return "At every other amount of damage measured it exceeds them too."
    # Amounts with the same faults are named together, and so are backbones with the same fault at an amount.
    places: dict[str, list[str]] = {}
    for level in dict.fromkeys(_level_of(x, focus) for x in controls):
        here = [x for x in controls if _level_of(x, focus) == level]
        if any(not _exceeded(x) for x in here):
            places.setdefault(_faults(here), []).append("on clean features" if level == CLEAN_LABEL else f"at {level}")
    told = (f"{listed(levels)}, {faults}" for faults, levels in places.items())
    return f"At other amounts of damage it does NOT exceed, {'; '.join(told)}."


def _faults(controls: list[Facts]) -> str:
    """Which controls are not exceeded on which backbones, of one amount of damage."""
    short = [x for x in controls if not _exceeded(x)]
    if len(short) == len(controls) > 1:
        return "any control on any backbone measured"
    by_fault: dict[tuple[str, ...], list[str]] = {}
    for backbone in dict.fromkeys(x["backbone"] for x in short):
        by_fault.setdefault(tuple(x["against"] for x in short if x["backbone"] == backbone), []).append(backbone)
    return " and ".join(f"{listed(map(variant_name, faults))} on {listed(on)}" for faults, on in by_fault.items())


def _exceeded(fact: Facts) -> bool:
    """Beyond chance, or by the means alone where no test was possible."""
    return bool(fact["relative"]["mean"] > 0) if fact["verdict"] == "untested" else fact["verdict"] == "better"


def _level_of(fact: Facts, focus: Facts) -> str:
    if fact["kind"] != focus["kind"]:
        return amount_label(fact)
    same = fact["damaged"] == focus["damaged"]
    return whole_percent(fact["share"]) + ("" if same else f" of {fact['damaged']} features")


def _inert_sentence(facts: Facts) -> str:
    source, said = facts["source"], []
    if source["inert"]:
        said.append(
            f"{listed(source['inert'])} gave the same numbers on raw and rectified features: nothing read there was changed."
        )
    asked = {x["backbone"] for x in facts["comparisons"] if x["question"] in (CLEAN, DAMAGE)}
    alone = [name for name in source["backbones"] if name not in asked]
    if alone and asked:
        said.append(f"For {listed(alone)} there is no pair of raw and rectified.")
    return " ".join(said)


def _noised_sentence(noised: list[Facts]) -> str:
    tested = [x for x in noised if x["verdict"] != "untested"]
    if not noised:
        return ""
    of = f"of {plural(len(noised), 'pair')} on noised or edited interactions"
    if not tested:
        return f"Rectified is ahead of raw in {sum(x['relative']['mean'] > 0 for x in noised)} {of}, untested."
    better, worse = (sum(x["verdict"] == verdict for x in noised) for verdict in ("better", "worse"))
    return f"Rectified is significantly better than raw in {better} and worse in {worse} {of}."


def _editing_sentence(edited: list[Facts]) -> str:
    if not edited:
        return ""
    told = []
    for name in dict.fromkeys(x["editing"] for x in edited):
        own = [x for x in edited if x["editing"] == name]
        if all(x["verdict"] == "untested" for x in own):
            ahead = sum(x["relative"]["mean"] > 0 for x in own)
            told.append(f"{editing_name(name)} ahead in {ahead} of {len(own)}, untested")
            continue
        better, worse = (sum(x["verdict"] == verdict for x in own) for verdict in ("better", "worse"))
        told.append(f"{editing_name(name)} better in {better} and worse in {worse} of {len(own)}")
    return f"Edge editing against none in Recall@20, by the pairs compared: {'; '.join(told)}."


def _aligned_sentence(aligned: list[Facts]) -> str:
    if not aligned:
        return ""
    of = f"the best fixed choice (none included, chosen by its mean afterwards) in {plural(len(aligned), 'setting')}"
    if all(x["verdict"] == "untested" for x in aligned):
        return f"Aligned editing is level with or ahead of {of}: {sum(x['relative']['mean'] >= 0 for x in aligned)} times, untested."
    worse = [x for x in aligned if x["verdict"] == "worse"]
    if not worse:
        return f"Aligned editing is not significantly worse than {of}."
    places = (
        f"{x['backbone']} ({signed(x['relative']['mean'])} against {editing_name(x['editing_against'])})" for x in worse
    )
    return f"Aligned editing IS worse than {of}, on {listed(places)}."


def _by_backbone(controls: list[Facts]) -> str:
    """``plain smoothing (−0.2 %) on vbpr; shuffled anchors (+0.1 %) on freedom``, a backbone at a time."""
    told = []
    for backbone in dict.fromkeys(x["backbone"] for x in controls):
        own = (x for x in controls if x["backbone"] == backbone)
        told.append(
            listed(f"{variant_name(x['against'])} ({signed(x['relative']['mean'])})" for x in own) + f" on {backbone}"
        )
    return "; ".join(told)


def _headline(clean: list[Facts], damage: list[Facts], controls: list[Facts], edited: list[Facts]) -> str:
    if not clean and not damage and edited:
        better, worse = (sum(x["verdict"] == verdict for x in edited) for verdict in ("better", "worse"))
        return f"Edge editing: better in {better}, worse in {worse} of {plural(len(edited), 'comparison')}"
    if not clean and not damage:
        return "Nothing to compare: raw or rectified is missing"
    if damage and all(x["verdict"] == "untested" for x in damage):
        ahead = sum(x["relative"]["mean"] > 0 for x in damage)
        return f"Ahead of raw on {ahead} of {plural(len(damage), 'backbone')} under damage, untested"
    if not damage:
        kept = sum(x["relative"]["mean"] >= -MOST_CLEAN_LOSS for x in clean)
        return f"Clean features: {kept} of {len(clean)} metrics within 1{_NO_BREAK}% or better"
    better, worse = (sum(x["verdict"] == verdict for x in damage) for verdict in ("better", "worse"))
    said = f"Gain on {better} of {plural(len(damage), 'backbone')} under damage" + (
        f", loss on {worse}" if worse else ""
    )
    if controls and any(x["verdict"] != "untested" for x in controls):
        over = dict.fromkeys(x["backbone"] for x in controls)
        all_over = sum(all(x["verdict"] == "better" for x in controls if x["backbone"] == name) for name in over)
        said += f", all controls exceeded on {all_over}{'' if len(over) == len(damage) else f' of {len(over)}'}"
    return said


def _outcome(clean: list[Facts], damage: list[Facts], controls: list[Facts]) -> str:
    """``gain`` only where nothing speaks against it; ``harm`` for a loss beyond chance or over 1 % on clean features."""
    harmed = any(x["verdict"] == "worse" for x in (*clean, *damage))
    if harmed or any(x["relative"]["mean"] < -MOST_CLEAN_LOSS for x in clean):
        return "harm"
    if damage and controls and all(x["verdict"] == "better" for x in (*damage, *controls)):
        return "gain"
    return "mixed"


def _line(backbone: str, facts: Facts) -> str:
    """One backbone: clean change, gain and share won back by amount of damage, controls."""
    focus, said = facts["focus"], []
    clean = [x for x in _select(facts, CLEAN) if x["backbone"] == backbone and x["metric"] == RECALL]
    if clean:
        said.append(f"clean {with_interval(clean[0]['relative'])}, {p_phrase(clean[0])}")
    damage = [x for x in _select(facts, DAMAGE) if x["backbone"] == backbone]
    damage = [x for x in damage if (x["kind"], x["damaged"]) == (focus["kind"], focus["damaged"])]
    if damage:
        said.append(f"with {damage_phrase(damage[0])}: " + ", ".join(_gain(x) for x in damage))
    controls = [x for x in _select(facts, CONTROL) if x["backbone"] == backbone and in_focus(x, focus)]
    if controls:
        level = f"at {whole_percent(focus['control_share'])}" if focus["control_share"] else "on clean features"
        each = (f"{variant_name(x['against'])} {signed(x['relative']['mean'])}{marked(x['p_holm'])}" for x in controls)
        said.append(f"against controls {level}: " + ", ".join(each))
    return "; ".join(said)


def _gain(fact: Facts) -> str:
    recovered = fact["recovered"]
    won = "" if recovered is None else f" ({share_with_interval(recovered | {'low': None})} of the cost)"
    return f"at {whole_percent(fact['share'])} {signed(fact['relative']['mean'])}{marked(fact['p_holm'])}{won}"
