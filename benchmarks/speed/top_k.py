"""What the twenty best features of every item cost: FAISS's exact search, ours, and the search by lists with its index and its tuning.

python -m benchmarks.speed.top_k [--sizes 50000 200000 1000000] [--whole 50000] [--threads 1] > benchmarks/results/top_k.md

Two sorts of data, d = 64, unit rows. "clustered": an intrinsic dimension of 24, a cluster for every 250 items and noise; every row
asks for rows like itself. "hubs": a falling spectrum, clusters of very unequal size, and queries that are not the rows but beside them, as
anchors lie beside projected features. FAISS is called through IndexFlatIP in batches of 8,192 queries, all of them up to --whole items and
a sample beyond, whose cost is scaled up; it runs half before and half after ours. Recall is measured on queries that tuned nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from benchmarks.shared.placed import placed
from rectifier_core.affinity.affinity import find_neighbours
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.top_k import in_threads, lay_out, search_all
from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.seeding import generator

WIDTH, COUNT, SAMPLE, BATCH, PAIRS = 64, 20, 2000, 8192, 10**9


def clustered(items: int) -> tuple[Float32, Float32]:
    """Queries and features [I, D], the same."""
    rng, clusters = generator(0, "clustered"), max(20, items // 250)
    latent = rng.standard_normal((clusters, 24))[rng.integers(clusters, size=items)] + 0.7 * rng.standard_normal(
        (items, 24)
    )
    spread = rng.standard_normal((24, WIDTH)) / np.sqrt(24)
    rows = unit_rows((latent @ spread + 0.2 * rng.standard_normal((items, WIDTH))).astype(np.float32))
    return rows, rows


def hubs(items: int) -> tuple[Float32, Float32]:
    """Queries and features [I, D], side by side."""
    rng, clusters = generator(0, "hubs"), max(20, items // 250)
    scale, share = np.arange(1, WIDTH + 1) ** -0.7, np.arange(1, clusters + 1) ** -0.7
    centre = (rng.standard_normal((clusters, WIDTH)) * scale)[rng.choice(clusters, items, p=share / share.sum())]
    rows = centre + 0.5 * scale * rng.standard_normal((items, WIDTH))
    beside = rows + 0.4 * scale * rng.standard_normal((items, WIDTH))
    return unit_rows(beside.astype(np.float32)), unit_rows(rows.astype(np.float32))


KINDS: dict[str, Callable[[int], tuple[Float32, Float32]]] = {"clustered": clustered, "hubs": hubs}


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> np.ndarray:
        """Both."""
        return np.array([time.perf_counter() - self._start[0], time.process_time() - self._start[1]])


def peer(index: faiss.Index, queries: Float32) -> np.ndarray:
    """What FAISS takes for these queries, in batches."""
    clock = Clock()
    for block in row_blocks(len(queries), BATCH):
        index.search(queries[block], COUNT)
    return clock.read()


def ours_exact(features: Float32, queries: Float32, threads: int) -> np.ndarray:
    """What our exact search takes for these queries, laying the features out included."""
    clock = Clock()
    panels = lay_out(features, np.arange(len(features)), np.array([0, len(features)]))
    laid = clock.read() * len(queries) / len(features)
    clock = Clock()
    for _ in in_threads(
        lambda block: search_all(panels, queries[block], COUNT), list(row_blocks(len(queries), BATCH)), threads
    ):
        pass
    return laid + clock.read()


def resident(field: str) -> float:
    """A figure of this process's memory in MiB, by the kernel's name for it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(kind: str, items: int, whole: int, threads: int) -> tuple[str, float]:
    """One line of the table, and the CPU seconds of the search by lists."""
    queries, features = KINDS[kind](items)
    rng = generator(1, "asked")
    asked: Int64 = (
        np.arange(items) if items <= whole else np.sort(rng.choice(items, min(items, 4 * SAMPLE), replace=False))
    )
    halves = np.array_split(asked, 2)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(features)
    flat = peer(index, queries[halves[0]])
    Path("/proc/self/clear_refs").write_text("5")
    before, clock = resident("VmRSS"), Clock()
    found = find_neighbours(placed(features, queries), AffinityConfig(), seed=0, threads=threads)
    lists, peak = clock.read(), resident("VmHWM") - before
    flat = (flat + peer(index, queries[halves[1]])) * items / len(asked)
    some = queries[asked[: max(1024, min(len(asked), PAIRS // items))]]
    exact = np.array([peer(index, some) / ours_exact(features, some, threads) for _ in range(3)])
    sample = np.sort(rng.choice(items, SAMPLE, replace=False))
    truth = index.search(queries[sample], COUNT)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / COUNT for a, b in zip(truth, found.neighbours[sample], strict=True)])
    said = f"{flat[1]:.1f}{'' if items <= whole else ' (from a sample)'} | {np.median(exact[:, 1]):.2f} ({np.median(exact[:, 0]):.2f})"
    ratio = flat / lists
    line = f"| {kind} | {items:,} | {said} | {found.index} | {lists[1]:.1f} | {found.recall:.4f} | {recall:.4f} | "
    return line + f"**{ratio[1]:.1f}** ({ratio[0]:.1f}) | {peak:.0f} |", float(lists[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--whole", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    faiss.omp_set_num_threads(options.threads)
    asked, found = clustered(3000)
    small = placed(found, asked)
    find_neighbours(small, AffinityConfig(index="ivf"), seed=0)
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    sizes = " ".join(map(str, options.sizes))
    print(
        f"Command: `python -m benchmarks.speed.top_k --sizes {sizes} --whole {options.whole} --threads {options.threads}`, {cpu}\n"
    )
    print(
        "| data | items | FAISS flat: CPU s | our exact search: times faster, CPU (wall) | lists | all of it: CPU s | recall, as reported",
        end="",
    )
    print(" | recall, measured | times faster than FAISS flat, CPU (wall) | peak memory added, MiB |\n|" + "---|" * 10)
    for kind in KINDS:
        costs = []
        for items in options.sizes:
            line, cost = measure(kind, items, options.whole, options.threads)
            costs.append(cost)
            print(line, flush=True)
        if len(costs) > 1:
            slope = np.polyfit(np.log(options.sizes), np.log(costs), 1)[0]
            print(f"| {kind} | | | | growth: CPU s as items to the power | {slope:.2f} | | | | |", flush=True)


if __name__ == "__main__":
    main()
