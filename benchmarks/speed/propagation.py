"""The sparse product against SciPy's CSR and torch.sparse's COO product, one layer of propagation, 64 columns, interleaved in one process.

Graphs are bipartite with Zipf-like items: one of Amazon Baby's size (26,000 nodes, 237,000 entries both ways), one of 800,000 nodes and
10,000,000 entries, each the size of the published comparisons. CPU time is the process's; the ratio is of medians over the repeats. Memory
is what one call adds to the resident set at its highest, inputs left out.

    python -m benchmarks.speed.propagation [--repeats 15] > benchmarks/results/propagation.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch

from benchmarks.shared.synthetic_log import machine
from rectifier_core.anchors.propagation import InteractionGraph, layer_mean, normalised_bipartite, symmetric_adjacency
from rectifier_core.anchors.row_products import empty_rows, multiply

SIZES = {"26k nodes, 237k entries": (19_000, 7_000, 118_500), "800k nodes, 10M entries": (400_000, 400_000, 5_000_000)}
WIDTH = 64
Product = Callable[[], object]


def bipartite(num_users: int, num_items: int, pairs: int) -> sp.csr_array:
    """Users uniform, items skewed."""
    rng = np.random.Generator(np.random.PCG64(0))
    users = rng.integers(num_users, size=pairs).astype(np.int32)
    items = rng.permutation(num_items)[(num_items * rng.random(pairs) ** 2.5).astype(np.int64)].astype(np.int32)
    return normalised_bipartite(users, items, num_users, num_items)


def products(size: str) -> dict[str, Product]:
    """One layer by each implementation, over the same numbers."""
    matrix = bipartite(*SIZES[size])
    adjacency, graph = symmetric_adjacency(matrix), InteractionGraph.both_ways(matrix)
    rows = empty_rows(graph.num_nodes, WIDTH)
    rows[:] = np.random.Generator(np.random.PCG64(1)).standard_normal(rows.shape, dtype=np.float32)
    coo = adjacency.tocoo()
    indices = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    tensor = torch.sparse_coo_tensor(indices, torch.from_numpy(coo.data), coo.shape, check_invariants=False).coalesce()
    out = empty_rows(graph.num_nodes, WIDTH)

    def both_sides() -> None:
        for side in (0, 1):
            multiply(graph.towards[side], graph.rows(rows, 1 - side), out=graph.rows(out, side))

    both_sides()
    assert np.allclose(out, adjacency @ rows, atol=1e-4)
    return {
        "row_products": both_sides,
        "SciPy CSR": lambda: adjacency @ rows,
        "torch.sparse COO": lambda: torch.sparse.mm(tensor, torch.from_numpy(rows)),
    }


def means(size: str) -> dict[str, Product]:
    """LightGCN's mean over three layers: fused, and as SciPy's product would have it."""
    matrix = bipartite(*SIZES[size])
    adjacency, graph = symmetric_adjacency(matrix), InteractionGraph.both_ways(matrix)
    rows = empty_rows(graph.num_nodes, WIDTH)
    rows[:] = np.random.Generator(np.random.PCG64(1)).standard_normal(rows.shape, dtype=np.float32)
    out, scratch = (empty_rows(*rows.shape) for _ in range(2))

    def plain() -> None:
        layer, total = rows, rows.copy()
        for _ in range(3):
            layer = adjacency @ layer
            total += layer
        total /= 4

    return {"row_products": lambda: layer_mean(graph, rows, 3, out=out, scratch=scratch), "SciPy CSR": plain}


def timed(product: Product) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    product()
    return time.process_time() - cpu, time.perf_counter() - wall


def added_memory(size: str, name: str) -> float:
    """MiB that a call adds to the peak, in a process of its own."""
    code = (
        "from benchmarks.speed.propagation import products\n"
        f"product = products({size!r})[{name!r}]\n"
        "def field(name):\n"
        "    return int(next(x for x in open('/proc/self/status') if x.startswith(name)).split()[1])\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = field('VmRSS')\n"
        "product()\n"
        "print(field('VmHWM') - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def table(title: str, size: str, kernels: dict[str, Product], repeats: int, memory: bool) -> None:
    """One table: every implementation in turn, ``repeats`` times."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in kernels}
    for product in kernels.values():
        product()
    for repeat in range(repeats):
        for name in list(kernels) if repeat % 2 else list(kernels)[::-1]:
            costs[name].append(timed(kernels[name]))
    medians = {name: np.median(np.asarray(cost), axis=0) for name, cost in costs.items()}
    print(
        f"\n## {title}: {size}\n\n| product | CPU ms | least | wall ms | row_products is faster by, CPU | wall | MiB added |"
    )
    print("|" + "---|" * 7)
    for name, (cpu, wall) in medians.items():
        least = min(cost[0] for cost in costs[name])
        ratios = (cpu, wall) / medians["row_products"]
        added = f"{added_memory(size, name):.0f}" if memory else ""
        cells = (
            f"{1e3 * cpu:.1f}",
            f"{1e3 * least:.1f}",
            f"{1e3 * wall:.1f}",
            f"{ratios[0]:.2f}",
            f"{ratios[1]:.2f}",
            added,
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(
        f"# The sparse product\n\n{machine()}\n\nCommand: `python -m benchmarks.speed.propagation --repeats {options.repeats}`"
    )
    for index, size in enumerate(SIZES):
        repeats = options.repeats * (4 if index == 0 else 1)
        table("One layer", size, products(size), repeats, memory=True)
        table("Mean over three layers", size, means(size), repeats, memory=False)


if __name__ == "__main__":
    main()
