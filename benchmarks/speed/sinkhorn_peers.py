"""One way of balancing in a process of its own: what it takes, and where its columns end. ``benchmarks.speed.sinkhorn`` runs it.

    python -m benchmarks.speed.sinkhorn_peers NAME GRAPH.npz [PEERS]

GRAPH holds anchors, features and their graph. Dense peers get the matrix of all scores, float32, and as many iterations as plain scaling
needs on it for a mean relative column error of 1e-3; confined to the graph's entries they would need hundreds. PEERS is a folder with
packages that are not of this project.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.top_k import Clock, resident
from rectifier_core.base.records import Affinity
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance

TOLERANCE, TEMPERATURE, MOST = 1e-3, 0.1, 2000
Arrays = dict[str, np.ndarray]
Outcome = tuple[int, np.ndarray]


def scores(given: Arrays) -> np.ndarray:
    """All scores [I, I] float32."""
    found: np.ndarray = (given["anchors"] @ given["features"].T) / np.float32(TEMPERATURE)
    return found


def iterations(matrix: np.ndarray) -> int:
    """How many iterations plain scaling needs."""
    kernel = np.exp(matrix - matrix.max())
    columns = np.ones(len(kernel), np.float32)
    for iteration in range(MOST):
        sums = columns * (kernel.T @ (1 / (kernel @ columns)))
        if np.abs(sums - 1).mean() <= TOLERANCE:
            return iteration
        columns = columns / sums
    return MOST


def ours(given: Arrays, count: int) -> Outcome:
    """The stage as it is."""
    plan = balance(
        Affinity(modality="x", neighbours=given["neighbours"], scores=given["scores"], recall=1.0, index="flat"),
        SinkhornConfig(tolerance=TOLERANCE),
    )
    return plan.iterations, plan.column_sums


def pot(given: Arrays, count: int) -> Outcome:
    """``ot.sinkhorn``, its default method."""
    import ot

    even = np.full(len(given["anchors"]), 1 / len(given["anchors"]), np.float32)
    plan = ot.sinkhorn(even, even, -scores(given), reg=1.0, numItermax=count, stopThr=0.0, warn=False)
    return count, plan.sum(axis=0) * len(even)


def ott(given: Arrays, count: int) -> Outcome:
    """``ott.solvers.linear.sinkhorn.Sinkhorn`` on a dense geometry, as many iterations."""
    import jax
    from ott.geometry.geometry import Geometry
    from ott.problems.linear.linear_problem import LinearProblem
    from ott.solvers.linear.sinkhorn import Sinkhorn

    problem = LinearProblem(Geometry(cost_matrix=jax.numpy.asarray(-scores(given)), epsilon=1.0))
    solver = Sinkhorn(threshold=0.0, min_iterations=count, max_iterations=count, inner_iterations=count)
    out = jax.block_until_ready(jax.jit(solver)(problem))
    return count, np.asarray(out.marginal(0)) * len(given["anchors"])


PEERS: dict[str, Callable[[Arrays, int], Outcome]] = {"ours": ours, "pot": pot, "ott": ott}


def main() -> None:
    """Print what it took, as JSON."""
    name, path, *peers = sys.argv[1:]
    sys.path += peers
    with np.load(path) as file:
        given: Arrays = dict(file)
    count = int(given["iterations"])
    small = {key: value[:300] for key, value in given.items() if value.ndim}
    small["neighbours"] = small["neighbours"] % 300
    found: dict[str, Any]
    try:
        PEERS[name](small, 10)
    except ImportError as error:
        found = {"absent": str(error)}
    else:
        Path("/proc/self/clear_refs").write_text("5")
        before, clock = resident("VmRSS"), Clock()
        done, columns = PEERS[name](given, count)
        wall, cpu = clock.read()
        error = float(np.abs(columns - 1).mean())
        found = {"wall": wall, "cpu": cpu, "mib": resident("VmHWM") - before, "iterations": done, "error": error}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
