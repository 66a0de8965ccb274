"""What a night costs as the catalog grows: the demo catalog at each size, then ``catalog-rectifier rectify`` as a user runs it, cold.

A size is written and run by processes of their own, in folders that are gone afterwards. Seconds, CPU seconds and the peak of each stage
are those of the run's JSON summary, both modalities' added up, of their peaks the larger; of the whole process they are what the system
counts, pages of mapped files included. "The rest" is starting, publishing and the report. The exponent is the slope of a line through the
logarithms of cost and items: 1 is linear. Widths, users and pairs are those of a production catalog: 1,280 and 384 numbers, a user an item,
ten rows of the log a user.

    python -m benchmarks.nights.scale [--items 10000 100000] [--large] [--next-night] [--folder DIR] > benchmarks/results/scale.md
    python -m benchmarks.nights.scale --items 3000000 --widths 256 128 --set 'resources.memory="16GiB"' > benchmarks/results/scale_3m.md

``--large`` adds a million items: some 40 GB of disk and half an hour on two cores. ``--next-night`` runs an incremental night after each.
``--widths 256 128`` makes narrower features, for catalogs whose copies would not fit on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.shared.synthetic_log import machine

WIDTHS = (1280, 384)
USERS_AN_ITEM, ROWS_A_USER = 1.0, 10
CHANGED = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """One run: the whole process's wall and CPU seconds and peak in bytes, and its stages' by name."""

    items: int
    wall: float
    cpu: float
    peak: int
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, items: int, summary: dict[str, Any], wall: float, cpu: float, peak: int) -> Night:
        """From the summary of ``rectify --json``; a stage that was found and not built counts nothing."""
        built = summary["stage_memory_bytes"]

        def added(values: dict[str, float]) -> dict[str, float]:
            total: dict[str, float] = {}
            for name in built:
                if name in values:
                    stage = name.split("/")[0]
                    total[stage] = total.get(stage, 0.0) + values[name]
            return total

        peaks: dict[str, int] = {}
        for name, size in built.items():
            stage = name.split("/")[0]
            peaks[stage] = max(peaks.get(stage, 0), size)
        seconds, cpu_seconds = added(summary["seconds"]), added(summary.get("cpu_seconds", {}))
        rest = {"the rest": wall - sum(seconds.values())}
        rest_cpu = {"the rest": cpu - sum(cpu_seconds.values())} if cpu_seconds else {}
        return cls(
            items=items,
            wall=wall,
            cpu=cpu,
            peak=peak,
            seconds=seconds | rest,
            cpu_seconds=cpu_seconds | rest_cpu,
            peaks=peaks,
        )


def command(
    arguments: Sequence[str], *, tree: Path | None = None, flags: Sequence[str] = (), log: IO[bytes] | None = None
) -> tuple[dict[str, Any], float, float, int]:
    """Run ``catalog-rectifier ... --json`` to its end: what it said, wall and CPU seconds, the most bytes it held.

    ``tree`` is another checkout whose code runs, ``flags`` are the interpreter's, and ``log`` takes stderr.
    """
    start = time.perf_counter()
    env = None if tree is None else os.environ | {"PYTHONPATH": str(tree)}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *flags, "-m", "flows", *arguments, "--json"], stdout=said, stderr=log, cwd=tree, env=env
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"catalog-rectifier {' '.join(arguments)} ended with {process.returncode}; see above")
        said.seek(0)
        found: dict[str, Any] = json.loads(said.read().splitlines()[-1])
    # A run sets the system's high-water mark back at every stage, and keeps the highest itself.
    return found, wall, usage.ru_utime + usage.ru_stime, max(usage.ru_maxrss * 1024, found.get("peak_memory_bytes", 0))


def demo(folder: Path, items: int, widths: Sequence[int]) -> None:
    """Write the demo catalog of so many items with an image and a text of these widths."""
    users = round(items * USERS_AN_ITEM)
    counts = {"--items": items, "--users": users, "--interactions": users * ROWS_A_USER}
    image, text = widths
    sizes = [str(x) for pair in counts.items() for x in pair]
    command(["demo", str(folder), *sizes, "--width", f"image={image}", "--width", f"text={text}"])


def night(folder: Path, items: int, settings: Sequence[str]) -> Night:
    """Run the flow over the catalog in ``folder``."""
    given = [x for setting in settings for x in ("--set", setting)]
    return Night.of(items, *command(["rectify", "--config", str(folder / "run.toml"), *given]))


def exponent(nights: Sequence[Night], cost: str, stage: str | None) -> float | None:
    """The slope of log cost over log items; None where there are no two points or a cost is under a tenth of a second."""
    values = [getattr(x, cost) if stage is None else getattr(x, cost).get(stage, 0.0) for x in nights]
    if len(nights) < 2 or min(values) < 0.1:
        return None
    return float(np.polyfit(np.log([x.items for x in nights]), np.log(values), 1)[0])


def table(title: str, nights: Sequence[Night]) -> None:
    """A line a stage: seconds (CPU seconds) and peak at each size, and the exponents."""
    print(f"\n## {title}\n")
    heads = [f"{x.items:,} items: s (CPU s), peak MiB" for x in nights]
    print("| stage | " + " | ".join(heads) + " | exponent, wall | CPU |\n|" + "---|" * (3 + len(nights)))
    whole = [f"{x.wall:.1f} ({x.cpu:.1f}), {x.peak / 2**20:,.0f}" for x in nights]
    print(
        f"| **whole run** | {' | '.join(whole)} | {_said(exponent(nights, 'wall', None))} | {_said(exponent(nights, 'cpu', None))} |"
    )
    for stage in nights[-1].seconds:
        cells = []
        for x in nights:
            cpu = f" ({x.cpu_seconds[stage]:.1f})" if stage in x.cpu_seconds else ""
            peak = f", {x.peaks[stage] / 2**20:,.0f}" if stage in x.peaks else ""
            cells.append(f"{x.seconds.get(stage, 0):.1f}{cpu}{peak}")
        slopes = (_said(exponent(nights, cost, stage)) for cost in ("seconds", "cpu_seconds"))
        print(f"| {stage} | {' | '.join(cells)} | {' | '.join(slopes)} |", flush=True)


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--widths", type=int, nargs=2, default=WIDTHS, help="of image and text")
    parser.add_argument("--large", action="store_true", help="a million items as well")
    parser.add_argument(
        "--next-night", action="store_true", help="then the next night, incremental, 1 %% of the features changed"
    )
    parser.add_argument(
        "--set", action="append", default=[], help="a setting for every run: resources.memory=8GiB; may be repeated"
    )
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    options = parser.parse_args()
    settings = [*options.set, *(["incremental.enabled=true"] if options.next_night else [])]
    sizes = [*options.items, *([1_000_000] if options.large else [])]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        # The first run of a checkout compiles.
        demo(Path(name) / "demo", 1000, options.widths)
        night(Path(name) / "demo", 1000, settings)
    cold, later = [], []
    for items in sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name) / "demo"
            demo(folder, items, options.widths)
            cold.append(night(folder, items, settings))
            if options.next_night:
                command(["demo", str(folder), "--next-day", "--changed", str(CHANGED)])
                later.append(night(folder, items, settings))
    said = (
        f"--items {' '.join(map(str, options.items))}"
        + f" --widths {' '.join(map(str, options.widths))}" * (tuple(options.widths) != WIDTHS)
        + " --large" * options.large
        + " --next-night" * options.next_night
    )
    said += "".join(f" --set {x}" for x in options.set)
    print(f"# A night as the catalog grows\n\n{machine()}\n\nCommand: `python -m benchmarks.nights.scale {said}`\n")
    print(
        f"Widths {options.widths[0]:,} and {options.widths[1]}, {USERS_AN_ITEM:g} users an item, {ROWS_A_USER} rows of the log a user. "
        "The peak of\nthe whole run counts pages of mapped files, which the system takes back when it needs them. Those of the stages count what "
        "the process\nholds, as `resources.memory` does."
    )
    table("Cold", cold)
    if later:
        table("The next night, incremental, 1 % of the features changed and a day of the log more", later)
        print("\n| items | of the cold run, wall | CPU |\n|---|---|---|")
        for one, other in zip(cold, later, strict=True):
            print(f"| {one.items:,} | {other.wall / one.wall:.3f} | {other.cpu / one.cpu:.3f} |")


if __name__ == "__main__":
    main()
