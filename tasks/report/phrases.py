"""Numbers and outcomes in words: one way of writing each, for the report's page and the lines a run prints."""

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
    """A part with its denominator: ``587 of 1,682 items (35 %)``."""
    return f"{part:,} of {whole:,} {what}" + (f" ({percent(part / whole)})" if whole else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number to ``digits`` significant digits; integers whole, what is not finite as a dash."""
    if value is None or not math.isfinite(value):
        return _DASH
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.{0 if abs(value) >= 1000 else 1}f}"
    return f"{value:.{digits}g}"


def compared(value: float | None, other: float | None) -> str:
    """A number that is read beside another: four digits, or as many as it takes for the two to look as different as they are."""
    for digits in (4, 7):
        if value == other or number(value, digits) != number(other, digits):
            return number(value, digits)
    return number(value, 17)


def fixed(value: float | None, decimals: int) -> str:
    """A number to so many decimals, None as a dash: for columns that should line up."""
    return _DASH if value is None else f"{value:.{decimals}f}"


def trust(value: float | None) -> str:
    """A trust value; what is not quite 0 does not look like 0."""
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
    """What to call the plan that was used, by how its balancing ended."""
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
    """The one sentence under the headline."""
    if outcome == "published":
        warned = [x["name"] for x in checks if not x["passed"]]
        passed = (
            f"{len(checks) - len(warned)} of {len(checks)} checks passed"
            if warned
            else f"All {len(checks)} checks passed"
        )
        warning = f" A warning: {'; '.join(warned)}." if warned else ""
        return f"{passed}, and {num_items:,} items went to the table in one commit.{warning}"
    if outcome == "unchanged":
        return "The table already holds the result of exactly these inputs and this config, so nothing was written."
    failed = [check for check in checks if check["blocking"] and not check["passed"]]
    reasons = [
        f"{x['name']} is {number(x['value'], 6)}, wanted {x['rule']} {number(x['bound'], 6)}" for x in failed[:3]
    ]
    rest = [f"and {len(failed) - 3} more below"] if len(failed) > 3 else []
    return "Nothing was published: " + "; ".join(reasons + rest) + ". Readers still see the table as it was."


def rate_phrase(trust: Mapping[str, Any]) -> str:
    """The rate of mix-ups among unlike items in words: "about 21 % (16-26 %)", or only its upper end where it may be none."""
    low, high = (
        (trust["low"], trust["high"])
        if trust.get("low_unlike") is None
        else (trust["low_unlike"], trust["high_unlike"])
    )
    if low < 0.005:
        return f"at most {percent(high)}"
    return (
        f"about {percent(trust['mismatch_rate'])} ({percent(low).removesuffix(_NO_BREAK + '%')}{_DASH}{percent(high)})"
    )


def stretch_phrase(trust: Mapping[str, Any]) -> str:
    """How far mix-ups among alike items may raise the rate, in words; empty where they do not."""
    high = trust.get("high_unlike")
    if high is None or trust["high"] < high + 0.005:
        return ""
    return f"up to {percent(trust['high'])} counting mix-ups among alike items"


def sequence_phrase(sequence: Mapping[str, Any]) -> str:
    """What was found in a modality's sequences, in words, with denominators."""
    if not sequence["identifiable"]:
        return f"its {sequence['segments']:,} segments cannot be told apart ({sequence['reason'].rstrip('. ')})"
    return (
        f"{sequence['segments_doubtful']:,} of its {sequence['segments']:,} segments are doubtful, in "
        f"{plural(sequence['items_with_doubtful'], 'item')}"
    )


def offset_phrase(offset: Mapping[str, Any]) -> str:
    """How two sequence modalities lie in time, in words."""
    first, second, lag = offset["first"], offset["second"], offset["lag"]
    if not offset["identifiable"]:
        return f"{first} and {second}: no time between them can be told ({offset['reason'].rstrip('. ')})"
    if lag == 0:
        return f"{first} and {second} run in step"
    behind, ahead = (second, first) if lag > 0 else (first, second)
    return f"{behind} runs {plural(abs(lag), 'segment')} behind {ahead}"


def shadow_phrase(found: Mapping[str, Any]) -> str:
    """What the shadow evaluation found, in words."""
    used = "" if found["interactions"] == found["interactions_of"] else f", a sample of {found['interactions_of']:,}"
    where = f"shadow {found['backbone']}, {plural(found['interactions'], 'pair')} of the log{used}"
    if found["high"] is None:
        return f"{where}: not judged, {found['reason']}"
    how = (
        "the last of them in time" if found["split"] == "time" else f"some of them at random ({found['split_reason']})"
    )
    change, low, high = (
        f"{100 * x:+.1f}".replace("-", "\u2212") for x in (found["change"], found["low"], found["high"])
    )
    raw, rectified = (number(found[side]["recall@20"]) for side in ("raw", "rectified"))
    verdict = "not worse beyond noise" if found["not_worse"] else "worse beyond noise"
    return (
        f"{where}, tested on {how} for {plural(found['users'], 'user')}: Recall@20 {raw} with raw features, {rectified} with rectified "
        f"ones, a change of {change}{_NO_BREAK}% ({low} to {high}{_NO_BREAK}%): {verdict}"
    )


def shadow_cost(found: Mapping[str, Any]) -> str:
    """What the shadow evaluation cost, in words."""
    trained = (
        f"{plural(found['epochs'], 'epoch')} in {plural(found['seeds'], 'training')} a side, and one more matching"
    )
    took = "nothing: it was there from an earlier run" if found["reused"] else duration(found["seconds"])
    grown = f"peak memory of the run {size(found['peak_memory_before'])} before it, {size(found['peak_memory_after'])} after"
    return f"{took} ({trained}); {grown}"


def modality_summary(fact: Mapping[str, Any], jumps: Sequence[Mapping[str, Any]] = ()) -> str:
    """One modality's line for the banner, without its name: what looks mismatched and what was done, with denominators."""
    trust, status, copies = fact["trust"], fact["status"], fact["copies"]
    if trust["identifiable"] and trust["mismatch_rate"] is not None:
        found = f"{rate_phrase(trust)} of {trust['judged']:,} judged items look mismatched"
        found += f", {stretch_phrase(trust)}" if stretch_phrase(trust) else ""
    else:
        found = (
            f"mismatches cannot be told ({trust['reason'].rstrip('. ')})"
            if trust["reason"]
            else "mismatches cannot be told"
        )
    done = ", ".join(
        f"{status[key]:,} {key.replace('_', ' ')}" for key in ("rectified", "passed_through", "imputed", "missing")
    )
    said = [found, done]
    if copies["placeholders"]["groups"]:
        held = copies["placeholders"]
        said.append(
            f"{plural(held['items'], 'item')} of {copies['present']:,} with a feature carry {plural(held['groups'], 'placeholder')}"
        )
    if fact.get("sequence"):
        said.append(sequence_phrase(fact["sequence"]))
    said += [f"a jump since {jump['since']}: {jump_phrase(jump)}" for jump in jumps if jump["modality"] == fact["name"]]
    return "; ".join(said)


def plural(value: int, what: str) -> str:
    """A count with its noun: ``1 item``, ``1,200 items``."""
    return f"{value:,} {what}{'' if value == 1 else 's'}"


def jump_phrase(jump: Mapping[str, Any]) -> str:
    """A jump of the rate in words: what it was, what it is."""
    before, now = (
        rate_phrase(x) if x["identifiable"] and x["low"] is not None else "not to be told"
        for x in (jump["before"], jump["now"])
    )
    return f"{before} then, {now} now"


def evidence_phrase(evidence: Mapping[str, Any]) -> str:
    """What the judged items were judged by, in words: ``1,200 by behaviour and other modalities, 80 by other modalities alone``."""
    alone = "" if evidence["both"] + evidence["witness"] == 0 else " alone"
    parts = (
        ("both", "by behaviour and other modalities"),
        ("behaviour", f"by behaviour{alone}"),
        ("witness", "by other modalities alone"),
    )
    return ", ".join(f"{evidence[kind]:,} {words}" for kind, words in parts if evidence[kind])
