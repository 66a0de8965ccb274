"""What balancing costs: a step against SciPy's products, iterations, against dense solvers, and as items grow.

    python -m benchmarks.speed.sinkhorn [--items 1000000] [--repeats 7] [--peers FOLDER] > benchmarks/results/sinkhorn.md

Steps are interleaved in one process with one thread, medians of CPU time. SciPy gets both copies of the matrix ready made, by rows and by
columns, and returns two vectors; a step of ours is its two products, exponentials, logarithms and the error too. Solvers run in a process
each; their memory is what they add to the resident set at its highest, cost matrix included. FOLDER may hold ott-jax (``pip install
--target``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.shared.synthetic_log import machine
from benchmarks.speed import sinkhorn_graphs as graphs
from benchmarks.speed.sinkhorn_peers import TOLERANCE, iterations, scores
from benchmarks.speed.top_k import Clock, resident
from rectifier_core.base.arrays import Float32, Float64
from rectifier_core.base.records import Affinity
from rectifier_core.sinkhorn.anderson import Anderson
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.scaling import in_order, kernel_sums
from rectifier_core.sinkhorn.sinkhorn import Scaling, balance
from rectifier_core.sinkhorn.sparse_graph import Support, build_support
from tasks.stages.sinkhorn import mapped_room
from tasks.store.store import StageWriter

PEER_ITEMS, FOUND_ITEMS, MOST, GROWTH = 10_000, 20_000, 1000, (100_000, 300_000, 1_000_000)


def scipy_products(support: Support, dtype: type) -> tuple[sp.csr_array, sp.csr_array]:
    """The same numbers by rows and by columns."""
    shape = (support.num_items,) * 2
    sides = (
        (side.kernel.astype(dtype), side.indices, side.indptr.astype(np.int32))
        for side in (support.rows, support.columns)
    )
    by_row, by_column = (sp.csr_array(side, shape) for side in sides)
    return by_row, by_column


def products(support: Support, scaled: Float32 | Float64, inverse: Float32 | Float64) -> None:
    """Ours, rows then columns."""
    in_order(kernel_sums, support.row_blocks, (scaled,))
    in_order(kernel_sums, support.column_blocks, (inverse,))


def steps(items: int, repeats: int) -> None:
    """The table of a step, graph by graph."""
    print(
        "| graph | SciPy float32 | SciPy float64 | our products | with float64 vectors | against SciPy float32 | float64 against float64 ",
        end="",
    )
    print(
        "| a whole step | mixing | million non-zeros a second a step | bytes a step moves over the graph's |\n|"
        + "---|" * 11
    )
    kinds = {"random columns": graphs.scattered(items), "columns within 2,000": graphs.scattered(items, within=2000)}
    kinds |= {"clusters, shuffled": graphs.drawn(items), "clusters, in order": graphs.drawn(items, shuffled=False)}
    for name, affinity in kinds.items():
        support = build_support(affinity)
        scaling = Scaling(support, in_order)
        start = scaling.start(None)
        step, _ = scaling.column_step(start)
        mixing = Anderson(SinkhornConfig().memory, items)
        for place in range(SinkhornConfig().memory + 1):
            mixing.next(start, step * (1 + place))
        by_row, by_column = scipy_products(support, np.float32)
        by_row64, by_column64 = scipy_products(support, np.float64)
        v, u = scaling.scaled.copy(), scaling.inverse.copy()
        v32, u32 = v.astype(np.float32), u.astype(np.float32)
        work: dict[str, Callable[[], object]] = {
            "32": lambda a=by_row, b=by_column, v=v32, u=u32: (a @ v, b @ u),
            "64": lambda a=by_row64, b=by_column64, v=v, u=u: (a @ v, b @ u),
            "ours": lambda s=support, v=v32, u=u32: products(s, v, u),
            "ours64": lambda s=support, v=v, u=u: products(s, v, u),
            "step": lambda s=scaling, x=start: s.column_step(x),
            "mixing": lambda m=mixing, x=start, y=step: m.next(x, y),
        }
        taken: dict[str, list[float]] = {key: [] for key in work}
        for _ in range(repeats):
            for key, do in work.items():
                begun = time.process_time()
                do()
                taken[key].append(time.process_time() - begun)
        cpu = {key: 1e3 * float(np.median(times)) for key, times in taken.items()}
        # Index and kernel of an entry, both ways; some sixteen passes over a vector in float64.
        graph, moved = 16 * support.num_entries, 16 * support.num_entries + 16 * 8 * items
        rate = support.num_entries / 1e3 / cpu["step"]
        print(f"| {name} | {cpu['32']:.0f} | {cpu['64']:.0f} | {cpu['ours']:.0f} | {cpu['ours64']:.0f} ", end="")
        print(f"| **{cpu['ours'] / cpu['32']:.2f}** | **{cpu['ours64'] / cpu['64']:.2f}** ", end="")
        print(f"| {cpu['step']:.0f} | {cpu['mixing']:.0f} | {rate:.0f} | {moved / graph:.2f} |", flush=True)


def ordering(items: int, repeats: int) -> None:
    """What an order by likeness would bring and cost: items by the most wanted of their neighbours, three times over."""
    print(
        "| neighbours in the cluster | our products, shuffled | ordered | clusters in order | finding the order and relabelling |"
    )
    print("|---|---|---|---|---|")
    for near in (0.9, 0.6):
        given = graphs.drawn(items, near=near)
        clock = Clock()
        wanted = np.bincount(given.neighbours.ravel(), minlength=items)
        label = given.neighbours[np.arange(items), wanted[given.neighbours].argmax(axis=1)]
        for _ in range(3):
            label = label[label]
        order = np.argsort(label, kind="stable")
        place = np.empty(items, np.int32)
        place[order] = np.arange(items, dtype=np.int32)
        relabelled = graphs.graph(place[given.neighbours[order]])
        cost, taken = 1e3 * clock.read()[1], []
        for affinity in (given, relabelled, graphs.drawn(items, near=near, shuffled=False)):
            support = build_support(affinity)
            scaling = Scaling(support, in_order)
            scaling.column_step(scaling.start(None))
            scaled, inverse, times = scaling.scaled.astype(np.float32), scaling.inverse.astype(np.float32), []
            for _ in range(repeats):
                begun = time.process_time()
                products(support, scaled, inverse)
                times.append(time.process_time() - begun)
            taken.append(1e3 * float(np.median(times)))
        print(f"| {near:.0%} | {taken[0]:.0f} | {taken[1]:.0f} | {taken[2]:.0f} | {cost:.0f} |", flush=True)


def counts() -> None:
    """The table of iterations."""
    print(
        "| graph | first error | method | to 1e-3 | to 1e-6 | outcome at 1e-6 | mass on the diagonal |\n|" + "---|" * 7
    )
    for kind in graphs.SPREADS:
        affinity = graphs.found(kind, FOUND_ITEMS)
        for method in ("anderson", "knopp"):
            plan = balance(affinity, SinkhornConfig(method=method, tolerance=1e-6, max_iterations=MOST))  # type: ignore[arg-type]
            errors = plan.marginal_errors
            reached = [str(np.argmax(errors <= level)) if (errors <= level).any() else "-" for level in (1e-3, 1e-6)]
            line = f"| {kind} | {errors[0]:.2f} | {method} | {reached[0]} | {reached[1]} | {plan.outcome.name}, {plan.column_error:.1e} | "
            print(line + f"{plan.diagonal_mass:.2f} |", flush=True)


def peers(folder: str | None) -> None:
    """The table against dense solvers."""
    print(
        "| data | solver | iterations | column error | CPU s | wall s | memory, MiB | times slower, CPU (wall) | times the memory |"
    )
    print("|" + "---|" * 9)
    for kind in ("clustered", "iid"):
        anchors, features = graphs.points(kind, PEER_ITEMS)
        affinity = graphs.found(kind, PEER_ITEMS)
        given = {"anchors": anchors, "features": features, "neighbours": affinity.neighbours, "scores": affinity.scores}
        given["iterations"] = np.array(iterations(scores(given)))
        with tempfile.TemporaryDirectory() as place:
            np.savez(Path(place) / "graph.npz", **given)
            base = None
            for name in ("ours", "pot", "ott"):
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.speed.sinkhorn_peers",
                    name,
                    f"{place}/graph.npz",
                    *([folder] if folder else []),
                ]
                run = subprocess.run(command, capture_output=True, text=True, check=True)
                got = json.loads(run.stdout.splitlines()[-1])
                if "absent" in got:
                    print(f"| {kind} | {name} | not installed | | | | | | |", flush=True)
                    continue
                base = base or got
                more = [got[key] / max(base[key], 1e-9) for key in ("cpu", "wall", "mib")]
                line = f"| {kind} | {name} | {got['iterations']} | {got['error']:.1e} | {got['cpu']:.3f} | {got['wall']:.3f} "
                print(line + f"| {got['mib']:.1f} | {more[0]:.0f} ({more[1]:.0f}) | {more[2]:.0f} |", flush=True)


def whole(affinity: Affinity, memory: int | None) -> tuple[float, float, int]:
    """CPU seconds, MiB added, and iterations of a balance; with ``memory`` bytes the graph lies in files."""
    Path("/proc/self/clear_refs").write_text("5")
    before, clock = resident("VmRSS"), Clock()
    if memory is None:
        plan = balance(affinity, SinkhornConfig(tolerance=TOLERANCE))
    else:
        with tempfile.TemporaryDirectory() as place, mapped_room(StageWriter(Path(place))) as allocate:
            plan = balance(affinity, SinkhornConfig(tolerance=TOLERANCE), memory=memory, allocate=allocate)
    return float(clock.read()[1]), resident("VmHWM") - before, plan.iterations


def growth() -> None:
    """The table of whole balances."""
    print(
        "| where | items | iterations | CPU s | memory added, MiB | million non-zeros a second an iteration |\n|"
        + "---|" * 6
    )
    for name, memory in (("in memory", None), ("in files, 32 MiB of blocks", 32 << 20)):
        costs = []
        for items in GROWTH:
            cpu, mib, count = whole(graphs.drawn(items), memory)
            costs.append(cpu / (count + 1))
            rate = items * graphs.NEIGHBOURS * (count + 1) / cpu / 1e6
            print(f"| {name} | {items:,} | {count} | {cpu:.2f} | {mib:.0f} | {rate:.0f} |", flush=True)
        slope = np.polyfit(np.log(GROWTH), np.log(costs), 1)[0]
        print(f"| {name} | growth: CPU s an iteration as items to the power | | **{slope:.2f}** | | |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peers")
    parser.add_argument("--only", nargs="+", default=["steps", "order", "iterations", "peers", "growth"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"Command: `python -m benchmarks.speed.sinkhorn --items {options.items} --repeats {options.repeats}`, {machine()}\n"
    )
    tables = {
        "steps": (
            f"A step, {options.items:,} items x {graphs.NEIGHBOURS}: CPU ms",
            lambda: steps(options.items, options.repeats),
        ),
        "order": ("Ordering items by likeness: CPU ms", lambda: ordering(options.items, options.repeats)),
        "iterations": (f"Iterations, {FOUND_ITEMS:,} items x {graphs.NEIGHBOURS}, at most {MOST}", counts),
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
