"""A comparison of two runs on disk: JSON, and a page of Markdown with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.compare.compare_runs import FARTHER, TOLERANCE
from tasks.store.atomic_files import write_whole

FAILED = "comparison: {path} cannot be written: {why}; free or fix the disk, then run again"


def write_comparison(folder: Path, result: Mapping[str, Any]) -> str:
    """Write ``comparison.json`` and ``comparison.md``; the page's path."""
    write_whole(
        folder / "comparison.json",
        lambda path: path.write_text(json.dumps(result, indent=1, allow_nan=False)),
        failed=FAILED,
    )
    page = folder / "comparison.md"
    write_whole(page, lambda path: path.write_text("\n".join(told_comparison(result)) + "\n"), failed=FAILED)
    return str(page)


def told_comparison(result: Mapping[str, Any]) -> list[str]:
    """The page's lines."""
    lines = [f"# {result['as_of']}: run {result['run_id']} beside a cold run", ""]
    lines += [
        f"The run {result['reason']}. Yardstick: two cold runs of different seeds, of whose distance {TOLERANCE:g} times is allowed.",
        "",
    ]
    lines += ["| modality | measure | apart | yardstick | within tolerance |", "|---|---|---|---|---|"]
    for modality, found in result["modalities"].items():
        yardstick, within = result["yardstick"][modality], result["within"][modality]
        for name in FARTHER:
            passed = {True: "yes", False: "**no**"}.get(within.get(name, ""), "-")
            lines.append(
                f"| {modality} | {name.replace('_', ' ')} | {_number(found[name])} | {_number(yardstick[name])} | {passed} |"
            )
        lines.append(
            f"| {modality} | share of rows equal | {_number(found['equal'])} | {_number(yardstick['equal'])} | - |"
        )
        quantiles = ", ".join(f"{q}: {value:.4f}" for q, value in found["cosine_quantiles"].items())
        against = ", ".join(f"{q}: {value:.4f}" for q, value in yardstick["cosine_quantiles"].items())
        lines.append(f"| {modality} | cosine, by quantile | {quantiles} | {against} | - |")
        lines.append(f"| {modality} | mismatch rate | {_rates(found)} | {_rates(yardstick)} | - |")
    return lines


def _rates(found: Mapping[str, Any]) -> str:
    return " and ".join(_number(x["mismatch_rate"]) for x in found["rates"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5f}"
