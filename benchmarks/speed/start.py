"""Where the seconds of a small night go: loading code, stages, and the rest, which is Prefect, publishing and the report.

python -m benchmarks.speed.start [--beside TREE] [--nights 5] > benchmarks/results/start.md

Each night runs ``rectify`` over a new copy of the demo of 1,000 items. ``--beside`` names another checkout of this project: its nights run
in turn with this one's. CPU seconds include the temporary Prefect server. "Loading" is the sum over modules that ``-X importtime`` gives in
a night of its own, of the command's process alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import IO

import numpy as np

from benchmarks.nights.scale import command
from benchmarks.shared.synthetic_log import machine

HERE = Path(__file__).parents[2]
ITEMS, SHOWN = 1000, 8
IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")


def night(tree: Path, demo: Path, *flags: str, log: IO[bytes] | None = None) -> dict[str, float]:
    """A cold night of the checkout ``tree`` over a copy of ``demo``: wall and CPU seconds, those of its stages, and the rest."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(demo, Path(name) / "demo")
        arguments = ("rectify", "--config", str(Path(name) / "demo" / "run.toml"))
        summary, wall, cpu, _ = command(arguments, tree=tree, flags=flags, log=log)
    stages = sum(summary["seconds"].values())
    return {"wall": wall, "CPU": cpu, "stages": stages, "the rest": wall - stages}


def loading(tree: Path, demo: Path) -> Counter[str]:
    """Seconds by package, from what ``-X importtime`` prints in a night."""
    with tempfile.TemporaryFile() as log:
        night(tree, demo, "-X", "importtime", log=log)
        log.seek(0)
        text = log.read().decode()
    spent: Counter[str] = Counter()
    for microseconds, module in IMPORTED.findall(text):
        spent[module.split(".")[0]] += int(microseconds) / 1e6
    return spent


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--beside", type=Path, help="another checkout, with its own demo")
    parser.add_argument("--nights", type=int, default=5)
    options = parser.parse_args()
    trees = {"now": HERE} | ({"before": options.beside.absolute()} if options.beside else {})
    with tempfile.TemporaryDirectory() as folder:
        demos = {name: Path(folder) / name for name in trees}
        for name, tree in trees.items():
            command(("demo", str(demos[name]), "--items", str(ITEMS)), tree=tree)
        # The first night of a checkout may compile.
        loaded = {name: loading(tree, demos[name]) for name, tree in trees.items()}
        nights = [{name: night(tree, demos[name]) for name, tree in trees.items()} for _ in range(options.nights)]
    beside = " --beside TREE" if options.beside else ""
    print(f"# Where the seconds of a night of {ITEMS:,} items go\n\n{machine()}\n")
    print(f"Command: `python -m benchmarks.speed.start{beside} --nights {options.nights}`\n")
    print(f"Medians of {options.nights} nights, in turn.\n")
    print("| | " + " | ".join(trees) + " |\n|" + "---|" * (1 + len(trees)))
    for part in ("wall", "CPU", "stages", "the rest"):
        print(
            f"| {part}, s | " + " | ".join(f"{np.median([x[name][part] for x in nights]):.2f}" for name in trees) + " |"
        )
    print("| loading, s | " + " | ".join(f"{sum(loaded[name].values()):.2f}" for name in trees) + " |")
    for package, _ in sum(loaded.values(), Counter[str]()).most_common(SHOWN):
        print(f"| of it {package} | " + " | ".join(f"{loaded[name][package]:.2f}" for name in trees) + " |")


if __name__ == "__main__":
    main()
