"""What the projection of one modality costs, by the number of its features and their width.

    python -m benchmarks.speed.projection [--items 500 5000 50000] [--widths 64 384 1280 4096] > benchmarks/results/projection.md

Features are a random linear map of the anchors (64 numbers) and as much noise; a fifth is swapped. Seconds are those of the whole stage: eight
rounds of small-loss selection, each with a ridge regression for every fold.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.shared.synthetic_log import machine
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors
from rectifier_core.base.seeding import generator
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.projection import fit_projection

WIDTH, SWAPPED = 64, 0.2


def seconds(items: int, width: int) -> tuple[float, float]:
    """Wall and CPU seconds of one projection."""
    rng = generator(0, "benchmark", "projection", items, width)
    places = unit_rows(rng.standard_normal((items, WIDTH), dtype=np.float32))
    features = places @ rng.standard_normal((WIDTH, width), dtype=np.float32) / np.float32(np.sqrt(WIDTH))
    features += rng.standard_normal(features.shape, dtype=np.float32) * features.std()
    moved = rng.permutation(items)[: round(SWAPPED * items)]
    features[moved] = features[np.roll(moved, 1)]
    anchors = Anchors(
        items=places,
        ego=places,
        user_ego=np.zeros((0, WIDTH), np.float32),
        trained=np.ones(items, np.bool_),
        reliability=np.ones(items, np.float32),
        losses=np.zeros(0),
        recalls=np.zeros(1),
        method="spectral",
    )
    wall, cpu = time.perf_counter(), time.process_time()
    fit_projection("image", features, np.ones(items, np.bool_), anchors, ProjectionConfig(), seed=0)
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[500, 5000, 50_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 384, 1280, 4096])
    options = parser.parse_args()
    seconds(500, 64)  # Libraries load and threads start.
    print(f"# The projection of one modality: seconds (CPU seconds)\n\n{machine()}\n")
    print("Command: `python -m benchmarks.speed.projection`\n")
    print("| items | " + " | ".join(f"{width:,} numbers" for width in options.widths) + " |")
    print("|---" * (1 + len(options.widths)) + "|")
    for items in options.items:
        cells = [f"{wall:.1f} ({cpu:.1f})" for wall, cpu in (seconds(items, width) for width in options.widths)]
        print(f"| {items:,} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
