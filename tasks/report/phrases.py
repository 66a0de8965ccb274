"""Numbers and outcomes as text, for the report's page and the lines that a run prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_NO_BREAK = "\u00a0"
_DASH = "\u2013"


def count(value: int) -> str:
    """An integer with thousands separators."""
    return f"{value:,}"


def percent(share: float | None) -> str:
    """A share as a percentage that never rounds to a bare 0 or 100 unless it is one."""
    if share is None:
        return _DASH
    if 0 < share < 0.001:
        return f"<{_NO_BREAK}0.1{_NO_BREAK}%"
    if 0.999 < share < 1:
        return f">{_NO_BREAK}99.9{_NO_BREAK}%"
    decimals = 0 if share in (0, 1) or 0.1 <= share <= 0.9 else 1
    return f"{share * 100:.{decimals}f}{_NO_BREAK}%"


def share_of(part: int, whole: int, what: str) -> str:
    """A part with its whole: ``587 of 1,682 items (35 %)``."""
    return f"{part:,} of {whole:,} {what}" + (f" ({percent(part / whole)})" if whole else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number to ``digits`` significant digits; integers in full, a dash for None, NaN and infinities."""
    if value is None or not math.isfinite(value):
        return _DASH
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.{0 if abs(value) >= 1000 else 1}f}"
    return f"{value:.{digits}g}"


def compared(value: float | None, other: float | None) -> str:
    """A number that stands beside ``other``: four digits, or more where the two would look equal but are not."""
    for digits in (4, 7):
        if value == other or number(value, digits) != number(other, digits):
            return number(value, digits)
    return number(value, 17)


def fixed(value: float | None, decimals: int) -> str:
    """A number to ``decimals`` decimals, None as a dash."""
    return _DASH if value is None else f"{value:.{decimals}f}"


def trust(value: float | None) -> str:
    """A trust value to three decimals; a small one does not look like 0."""
    return "<" + _NO_BREAK + "0.001" if value is not None and 0 < value < 0.001 else fixed(value, 3)


def duration(seconds: float | None) -> str:
    """Seconds as ``0.42 s``, ``12.3 s``, ``3 min 07 s`` or ``2 h 05 min``."""
    if seconds is None:
        return _DASH
    if seconds < 60:
        return f"{seconds:.{1 if seconds >= 10 else 2}f}{_NO_BREAK}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{_NO_BREAK}min {whole % 60:02d}{_NO_BREAK}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60}{_NO_BREAK}h {minutes % 60:02d}{_NO_BREAK}min"


def size(number_of_bytes: int) -> str:
    """Bytes in the binary unit that fits."""
    value, unit = float(number_of_bytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.{0 if value >= 100 or unit == 'B' else 1}f}{_NO_BREAK}{unit}"


def plan_name(outcome: str) -> str:
    """The name of the plan by its outcome."""
    return "the plan (rows only)" if outcome == "ROW_ONLY" else "Sinkhorn"


def headline(outcome: str, table_version: int | None, failed: list[str]) -> str:
    """The banner's first line."""
    version = "" if table_version is None else f"version {table_version}"
    if outcome == "published":
        return "PUBLISHED" + (f" ({version})" if version else "")
    if outcome == "unchanged":
        return "NOTHING NEW" + (f" (already {version})" if version else "")
    which = failed[0] + (f" and {len(failed) - 1} more" if len(failed) > 1 else "") if failed else ""
    return "REFUSED BY THE QUALITY GATE" + (f" ({which})" if which else "")


def banner_sentence(outcome: str, num_items: int, checks: Sequence[Mapping[str, Any]]) -> str:
    """The sentences under the headline."""
    if outcome == "unchanged":
        return "The table already holds the result of these inputs and this config. The run wrote nothing."
    failed = [check for check in checks if not check["passed"]]
    if outcome == "published":
        passed = f"{len(checks) - len(failed)} of {len(checks)}" if failed else f"All {len(checks)}"
        warning = f" Warning: {'; '.join(check['name'] for check in failed)}." if failed else ""
        return f"{passed} checks passed. The run published {num_items:,} items in one commit.{warning}"
    blocking = [check for check in failed if check["blocking"]]
    reasons = [
        f"{x['name']} is {number(x['value'], 6)}, but must be {x['rule']} {number(x['bound'], 6)}" for x in blocking[:3]
    ]
    rest = [f"{len(blocking) - 3} more below"] if len(blocking) > 3 else []
    return f"The run published nothing. {'; '.join(reasons + rest)}. Readers keep the previous version."


def rate_phrase(trust: Mapping[str, Any]) -> str:
    """The rate of swaps among unlike items: "about 21 % (16-26 %)", or only its upper end where it may be zero."""
    unlike = trust.get("low_unlike") is not None
    low, high = (trust[f"{end}_unlike" if unlike else end] for end in ("low", "high"))
    if min(low, trust["low"]) < 0.005:
        return f"at most {percent(high)}"
    interval = f"{percent(low).removesuffix(_NO_BREAK + '%')}{_DASH}{percent(high)}"
    return f"about {percent(trust['mismatch_rate'])} ({interval})"


def stretch_phrase(trust: Mapping[str, Any]) -> str:
    """How far swaps among similar items may raise the rate; empty where they do not."""
    high = trust.get("high_unlike")
    if high is None or trust["high"] < high + 0.005:
        return ""
    return f"up to {percent(trust['high'])} with swaps between similar items"


def sequence_phrase(sequence: Mapping[str, Any]) -> str:
    """How many segments of a sequence modality look wrong."""
    if not sequence["identifiable"]:
        return f"wrong segments cannot be detected ({sequence['reason'].rstrip('. ')})"
    where = plural(sequence["items_with_doubtful"], "item")
    return f"{sequence['segments_doubtful']:,} of its {sequence['segments']:,} segments look wrong, in {where}"


def offset_phrase(offset: Mapping[str, Any]) -> str:
    """The time offset between two sequence modalities."""
    first, second, lag = offset["first"], offset["second"], offset["lag"]
    if not offset["identifiable"]:
        return f"{first} and {second}: the time offset cannot be measured ({offset['reason'].rstrip('. ')})"
    if lag == 0:
        return f"{first} and {second} have no time offset"
    later, earlier = (second, first) if lag > 0 else (first, second)
    return f"{later} is {plural(abs(lag), 'segment')} later than {earlier}"


def shadow_phrase(shadow: Mapping[str, Any]) -> str:
    """The result of the shadow evaluation."""
    sample = "" if shadow["interactions"] == shadow["interactions_of"] else f" of {shadow['interactions_of']:,}"
    where = f"shadow {shadow['backbone']}, {shadow['interactions']:,}{sample} pairs of the log"
    if shadow["high"] is None:
        return f"{where}: no result, {shadow['reason']}"
    split = "the last ones" if shadow["split"] == "time" else f"random ones ({shadow['split_reason']})"
    change, low, high = (
        f"{100 * x:+.1f}".replace("-", "\u2212") for x in (shadow["change"], shadow["low"], shadow["high"])
    )
    raw, rectified = (number(shadow[side]["recall@20"]) for side in ("raw", "rectified"))
    verdict = "not worse beyond noise" if shadow["not_worse"] else "worse beyond noise"
    return (
        f"{where}, tested on {split} for {plural(shadow['users'], 'user')}: Recall@20 is {raw} with raw features and {rectified} with "
        f"rectified ones, a change of {change}{_NO_BREAK}% ({low} to {high}{_NO_BREAK}%), {verdict}{_shadow_search(shadow['search'])}"
    )


def _shadow_search(search: Mapping[str, Any] | None) -> str:
    """The settings that the shadow's search chose, empty where nothing was searched."""
    if search is None or not search["epochs"]:
        return ""
    chosen = search["chosen"]
    decay = "" if chosen["weight_decay"] is None else f" and weight decay {chosen['weight_decay']:g}"
    edge = f" ({'; '.join(search['edges'])}: a better one may lie beyond)" if search["edges"] else ""
    return f". Validation pairs chose learning rate {chosen['learning_rate']:g}{decay}{edge}"


def shadow_cost(shadow: Mapping[str, Any]) -> str:
    """The cost of the shadow evaluation."""
    if shadow["reused"]:
        return "none, the result of an earlier run was reused"
    search = shadow["search"]
    before = f", {search['epochs']:,} of them in the search for its settings" if search and search["epochs"] else ""
    trained = f"{plural(shadow['epochs'], 'epoch')} in {plural(shadow['seeds'], 'training')} a side and one more matching{before}"
    before, after = size(shadow["peak_memory_before"]), size(shadow["peak_memory_after"])
    return (
        f"{duration(shadow['seconds'])} for {trained}; peak memory of the run {before} before it and {after} after it"
    )


def wrong_summary(fact: Mapping[str, Any], jumps: Sequence[Mapping[str, Any]] = ()) -> str:
    """One modality's line in the banner, without its name: how many items look mismatched, and how sure that is."""
    trust, placeholders = fact["trust"], fact["copies"]["placeholders"]
    if trust["identifiable"] and trust["mismatch_rate"] is not None:
        rate = f"{rate_phrase(trust)} of {trust['judged']:,} judged items look mismatched"
        parts = [f"{rate}, {stretch_phrase(trust)}" if stretch_phrase(trust) else rate]
    else:
        reason = f" ({trust['reason'].rstrip('. ')})" if trust["reason"] else ""
        parts = [f"mismatches cannot be detected{reason}"]
    if placeholders["groups"]:
        items = f"{placeholders['items']:,} of {plural(fact['copies']['present'], 'item')} with a feature"
        which = "a placeholder" if placeholders["groups"] == 1 else f"one of {placeholders['groups']:,} placeholders"
        parts.append(f"{items} show {which}")
    if fact.get("sequence"):
        parts.append(sequence_phrase(fact["sequence"]))
    parts += [f"jump since {x['since']}: {jump_phrase(x)}" for x in jumps if x["modality"] == fact["name"]]
    return "; ".join(parts)


def changed_summary(fact: Mapping[str, Any]) -> str:
    """One modality's line in the banner, without its name: how many features changed, and how far."""
    statuses = status_phrase(fact["status"])
    return moved_phrase(fact["moved"]) + (f"; {statuses}" if statuses else "")


def moved_phrase(moved: Mapping[str, int]) -> str:
    """How many features changed: ``82 changed clearly, 1,318 slightly``. Clearly is by more than .1, slightly by .01 to .1."""
    clearly, slightly = moved["more_than_0.1"], moved["more_than_0.01"] - moved["more_than_0.1"]
    if not slightly:
        return f"{clearly:,} changed clearly" if clearly else "none changed by more than 0.01"
    return (
        f"{clearly:,} changed clearly, {slightly:,} slightly"
        if clearly
        else f"{slightly:,} changed slightly, none clearly"
    )


def status_phrase(status: Mapping[str, int]) -> str:
    """How many features were rectified, passed through, imputed and missing, without the counts of 0."""
    statuses = ("rectified", "passed_through", "imputed", "missing")
    return ", ".join(f"{status[x]:,} {x.replace('_', ' ')}" for x in statuses if status[x])


def plural(value: int, what: str) -> str:
    """A count with its noun: ``1 item``, ``1,200 items``."""
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def jump_phrase(jump: Mapping[str, Any]) -> str:
    """A jump of the rate: the value before and the value now."""
    before, now = (
        rate_phrase(x) if x["identifiable"] and x["low"] is not None else "unknown"
        for x in (jump["before"], jump["now"])
    )
    return f"{before} then, {now} now"


def evidence_phrase(evidence: Mapping[str, Any]) -> str:
    """The evidence for the judged items: ``1,200 by behaviour and other modalities, 80 by other modalities alone``."""
    alone = " alone" if evidence["both"] + evidence["cross_modal"] else ""
    parts = {
        "both": "by behaviour and other modalities",
        "behaviour": f"by behaviour{alone}",
        "cross_modal": "by other modalities alone",
    }
    return ", ".join(f"{evidence[kind]:,} {text}" for kind, text in parts.items() if evidence[kind])
