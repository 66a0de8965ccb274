"""What balancing costs: iterations by graph, against dense solvers, and as the catalog grows.

    python -m benchmarks.speed.sinkhorn [--peers FOLDER] > benchmarks/results/sinkhorn.md

Each dense solver runs in a process of its own. Its memory is the growth of the resident set, cost matrix included. FOLDER may hold ott-jax
(``pip install --target``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.shared.synthetic_log import machine
from benchmarks.speed import sinkhorn_graphs as graphs
from benchmarks.speed.sinkhorn_peers import TOLERANCE, iterations, scores
from benchmarks.speed.top_k import Clock, resident
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance

PEER_ITEMS, SEARCHED_ITEMS, MOST, GROWTH = 10_000, 20_000, 1000, (100_000, 300_000, 1_000_000)


def counts() -> None:
    """Print the table of iterations."""
    print(
        "| graph | first error | method | to 1e-3 | to 1e-6 | outcome at 1e-6 | mass on the diagonal |\n|" + "---|" * 7
    )
    for kind in graphs.SPREADS:
        affinity = graphs.found(kind, SEARCHED_ITEMS)
        for method in ("anderson", "knopp"):
            plan = balance(affinity, SinkhornConfig(method=method, tolerance=1e-6, max_iterations=MOST))  # type: ignore[arg-type]
            errors = plan.marginal_errors
            reached = [str(np.argmax(errors <= level)) if (errors <= level).any() else "-" for level in (1e-3, 1e-6)]
            line = f"| {kind} | {errors[0]:.2f} | {method} | {reached[0]} | {reached[1]} | {plan.outcome.name}, {plan.column_error:.1e} | "
            print(line + f"{plan.diagonal_mass:.2f} |", flush=True)


def peers(folder: str | None) -> None:
    """Print the table against dense solvers."""
    print(
        "| data | solver | iterations | column error | CPU s | wall s | memory, MiB | times the CPU (wall) | times the memory |"
    )
    print("|" + "---|" * 9)
    for kind in ("clustered", "iid"):
        anchors, features = graphs.points(kind, PEER_ITEMS)
        affinity = graphs.found(kind, PEER_ITEMS)
        given = {"anchors": anchors, "features": features, "neighbours": affinity.neighbours, "scores": affinity.scores}
        given["iterations"] = np.array(iterations(scores(given)))
        with tempfile.TemporaryDirectory() as place:
            graph = Path(place) / "graph.npz"
            np.savez(graph, **given)
            base = None
            for name in ("ours", "pot", "ott"):
                command = [sys.executable, "-m", "benchmarks.speed.sinkhorn_peers", name, str(graph)]
                command += [folder] if folder else []
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                cost = json.loads(run.stdout.splitlines()[-1])
                if "absent" in cost:
                    print(f"| {kind} | {name} | not installed | | | | | | |", flush=True)
                    continue
                base = base or cost
                more = [cost[key] / max(base[key], 1e-9) for key in ("cpu", "wall", "mib")]
                line = f"| {kind} | {name} | {cost['iterations']} | {cost['error']:.1e} | {cost['cpu']:.3f} | {cost['wall']:.3f} "
                print(line + f"| {cost['mib']:.1f} | {more[0]:.0f} ({more[1]:.0f}) | {more[2]:.0f} |", flush=True)


def growth() -> None:
    """Print the table of whole balances."""
    print(
        "| items | iterations | CPU s | memory added, MiB | million non-zeros a second an iteration |\n|" + "---|" * 5
    )
    for items in GROWTH:
        affinity = graphs.drawn(items)
        Path("/proc/self/clear_refs").write_text("5")
        before, clock = resident("VmRSS"), Clock()
        plan = balance(affinity, SinkhornConfig(tolerance=TOLERANCE))
        cpu, mib = float(clock.read()[1]), resident("VmHWM") - before
        rate = items * graphs.NEIGHBOURS * (plan.iterations + 1) / cpu / 1e6
        print(f"| {items:,} | {plan.iterations} | {cpu:.2f} | {mib:.0f} | {rate:.0f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers")
    parser.add_argument("--only", nargs="+", default=["iterations", "peers", "growth"])
    options = parser.parse_args()
    print(f"Command: `python -m benchmarks.speed.sinkhorn`, {machine()}\n")
    tables = {
        "iterations": (f"Iterations, {SEARCHED_ITEMS:,} items x {graphs.NEIGHBOURS}, at most {MOST}", counts),
        "peers": (
            f"Against dense solvers, {PEER_ITEMS:,} items, mean column error {TOLERANCE:g}",
            lambda: peers(options.peers),
        ),
        "growth": ("A whole balance, clusters shuffled, graph built and plan made", growth),
    }
    for name in options.only:
        title, table = tables[name]
        print(f"## {title}\n")
        table()
        print()


if __name__ == "__main__":
    main()
