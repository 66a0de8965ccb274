"""What the twenty best features of every item cost: the affinity search, its index and tuning included, beside FAISS's exact search.

python -m benchmarks.speed.top_k [--sizes 50000 200000 1000000] [--whole 50000] [--threads 1] > benchmarks/results/top_k.md

Two sorts of data, d = 64, unit rows:
- "clustered": an intrinsic dimension of 24, a cluster for every 250 items, and noise. Queries are the rows themselves.
- "hubs": a falling spectrum and clusters of very unequal size. Queries lie beside the rows, as anchors lie beside projected features.

Exact search is FAISS's IndexFlatIP in batches of 8,192 queries: all of them up to --whole items, and a sample beyond, whose cost is scaled
up. Half of it runs before the affinity search and half after. Recall is measured on queries that tuned nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np

from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.base.arrays import Float32, Int64
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.seeding import generator
from tests.support.core_samples import places_of

WIDTH, COUNT, SAMPLE, BATCH = 64, 20, 2000, 8192


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


def exact(index: faiss.Index, queries: Float32) -> np.ndarray:
    """What exact search takes for these queries, in batches."""
    clock = Clock()
    for block in row_blocks(len(queries), BATCH):
        index.search(queries[block], COUNT)
    return clock.read()


def resident(field: str) -> float:
    """A figure of this process's memory in MiB, by the kernel's name for it."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def measure(kind: str, items: int, whole: int, threads: int) -> str:
    """One line of the table."""
    queries, features = KINDS[kind](items)
    rng = generator(1, "asked")
    asked: Int64 = np.arange(items) if items <= whole else np.sort(rng.choice(items, 4 * SAMPLE, replace=False))
    halves = np.array_split(asked, 2)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(features)
    faiss.omp_set_num_threads(threads)
    flat = exact(index, queries[halves[0]])
    Path("/proc/self/clear_refs").write_text("5")
    before, clock = resident("VmRSS"), Clock()
    found = find_affinity(places_of(features, queries), AffinityConfig(), seed=0, threads=threads)
    ours, peak = clock.read(), resident("VmHWM") - before
    faiss.omp_set_num_threads(threads)
    flat = (flat + exact(index, queries[halves[1]])) * items / len(asked)
    sample = np.sort(rng.choice(items, SAMPLE, replace=False))
    truth = index.search(queries[sample], COUNT)[1]
    recall = np.mean([len(np.intersect1d(a, b)) / COUNT for a, b in zip(truth, found.neighbours[sample], strict=True)])
    scaled = "" if items <= whole else " (from a sample)"
    return (
        f"| {kind} | {items:,} | {flat[1]:.1f}{scaled} | {found.index} | {ours[1]:.1f} ({ours[0]:.1f}) | "
        f"{found.recall:.4f} | {recall:.4f} | {flat[1] / ours[1]:.1f} | {peak:.0f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--whole", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    sizes, kinds = " ".join(map(str, options.sizes)), " ".join(options.kinds)
    command = f"python -m benchmarks.speed.top_k --kinds {kinds} --sizes {sizes} --whole {options.whole}"
    print(f"Command: `{command} --threads {options.threads}`, {cpu}\n")
    print("| data | items | exact search: CPU s | index | affinity search: CPU s (wall) | recall, reported", end="")
    print(" | recall, measured | times less CPU than exact | peak memory added, MiB |\n|" + "---|" * 9)
    for kind in options.kinds:
        for items in options.sizes:
            print(measure(kind, items, options.whole, options.threads), flush=True)


if __name__ == "__main__":
    main()
