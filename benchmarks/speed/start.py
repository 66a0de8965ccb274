"""Where the seconds of a small night go: loading code, stages, and the rest, which is Prefect, publishing and the report.

python -m benchmarks.speed.start [--beside TREE] [--nights 5] > benchmarks/results/start.md

Each night runs ``rectify`` over a new copy of the demo of 1,000 items. ``--beside`` names another checkout of this project: its nights run
in turn with this one's. CPU seconds include the temporary Prefect server. "Loading" is the sum over modules that ``-X importtime`` gives in
a night of its own, of the command's process alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.shared.synthetic_log import machine

HERE = Path(__file__).parents[2]
ITEMS, SHOWN = 1000, 8
IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")


def run(tree: Path, *arguments: str, flags: tuple[str, ...] = ()) -> tuple[dict[str, float], str]:
    """Run a command of the checkout ``tree``. Return wall and CPU seconds, and those of its stages, and what it wrote to stderr."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as log:
        command = [sys.executable, *flags, "-m", "flows", *arguments, "--json"]
        process = subprocess.Popen(
            command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, stdout=out, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), log.seek(0)
        text = log.read().decode()
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} in {tree} ended with {process.returncode}: {text[-2000:]}")
        summary = json.loads(out.read().splitlines()[-1])
    stages = sum(summary.get("seconds", {}).values())
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall": wall, "CPU": cpu, "stages": stages, "the rest": wall - stages}, text


def night(tree: Path, demo: Path, *flags: str) -> tuple[dict[str, float], str]:
    """A cold night of ``tree`` over a copy of ``demo``."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(demo, Path(name) / "demo")
        return run(tree, "rectify", "--config", str(Path(name) / "demo" / "run.toml"), flags=flags)


def loading(text: str) -> Counter[str]:
    """Seconds by package, from what ``-X importtime`` prints."""
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
            run(tree, "demo", str(demos[name]), "--items", str(ITEMS))
        # The first night of a checkout may compile.
        loaded = {name: loading(night(tree, demos[name], "-X", "importtime")[1]) for name, tree in trees.items()}
        nights = [{name: night(tree, demos[name])[0] for name, tree in trees.items()} for _ in range(options.nights)]
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
