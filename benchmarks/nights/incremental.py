"""An incremental night beside a cold one of the same day: CPU seconds a stage, and how far apart they end.

A demo catalog is published cold, then a night at a time with a share of its features changed and one more day of events, incrementally; the
last day is also run cold, and cold with another seed. Seconds are those of whole runs in one process: on a machine that does other work
compare CPU seconds.

    python -m benchmarks.nights.incremental --items 20000 --image 1280 --text 384 [--nights 1] [--changed 0.01] [--folder DIR]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from flows.config.prefect_settings import set_prefect_defaults

STAGES = (
    "source",
    "row_mapping",
    "anchors",
    "copies",
    "cross_modal_target",
    "projection",
    "cross_modal",
    "affinity",
    "sinkhorn",
    "trust",
    "rectify",
)


def run_nights(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The summaries of the last night, incremental and cold, their scores against what was planted, and the comparison."""
    from flows.compare import compare_nights
    from flows.config.run_config import RunConfig
    from flows.nightly import rectify_catalog
    from tasks.demo.catalog import DemoConfig, add_day, write_demo
    from tasks.demo.score import score_ranking

    demo = folder / "demo"
    summary = write_demo(
        demo,
        DemoConfig(items=options.items, users=options.users, widths={"image": options.image, "text": options.text}),
    )
    kept = ["run.keep_stages=4", "incremental.enabled=true", *options.set]
    config = RunConfig.from_toml(demo / "run.toml", kept)
    cold_config = RunConfig.from_toml(
        demo / "run.toml", [*kept, "incremental.enabled=false", f"publish.uri={folder / 'cold'}"]
    )
    first = rectify_catalog(config, date.fromisoformat(summary["last_day"]))
    for _ in range(options.nights):
        summary = add_day(demo, options.changed)
        day = date.fromisoformat(summary["last_day"])
        night = rectify_catalog(config, day)
        print(f"{day}: {night['incremental']}", file=sys.stderr)
    cold = rectify_catalog(cold_config, day)
    scores = {
        name: score_ranking(x.publish.uri, demo / "truth", day)
        for name, x in (("incremental", config), ("cold", cold_config))
    }
    return {"first": first, "night": night, "cold": cold, "scores": scores, "comparison": compare_nights(config, day)}


def by_stage(found: dict[str, float]) -> dict[str, float]:
    """Seconds of all modalities together, by stage."""
    return {stage: sum(x for name, x in found.items() if name.split("/")[0] == stage) for stage in STAGES}


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    for name, default in (("items", 20_000), ("image", 1280), ("text", 384), ("nights", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--users", type=int)
    parser.add_argument("--changed", type=float, default=0.01)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    set_prefect_defaults()
    with tempfile.TemporaryDirectory() as temporary:
        found = run_nights(options.folder or Path(temporary), options)
    _print(found, options)


def _print(found: dict[str, Any], options: argparse.Namespace) -> None:
    from tasks.compare.compare_runs import comparison_page

    night, cold = found["night"], found["cold"]
    given = f"--items {options.items} --image {options.image} --text {options.text} --nights {options.nights} --changed {options.changed:g}"
    given += "".join(f" --set {x}" for x in options.set)
    print(f"Command: `python -m benchmarks.nights.incremental {given}`\n")
    print(f"Changed: {night['incremental']['changed']} of {night['rows']:,} rows.\n")
    print("| stage | CPU s, cold | CPU s, incremental | wall s, cold | wall s, incremental |\n|---|---|---|---|---|")
    columns = [by_stage(x[kind]) for kind in ("cpu_seconds", "seconds") for x in (cold, night)]
    for stage in STAGES:
        print(f"| {stage} | " + " | ".join(f"{x[stage]:.1f}" for x in columns) + " |")
    print("| all | " + " | ".join(f"{sum(x.values()):.1f}" for x in columns) + " |\n")
    print(
        "The cold run found the source read by the incremental one; publishing, gate and report are alike in both, and not in this.\n"
    )
    print(
        "| AUC of trust against planted mismatches | "
        + " | ".join(found["scores"]["cold"]["modalities"])
        + " |\n|---|---|---|"
    )
    for name, score in found["scores"].items():
        print(f"| {name} | " + " | ".join(f"{x['auc']:.4f}" for x in score["modalities"].values()) + " |")
    print("\n" + "\n".join(comparison_page(found["comparison"])[2:]))


if __name__ == "__main__":
    main()
