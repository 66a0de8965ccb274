"""What a CUDA device gives: the CPU's results within tolerances, and how much sooner. It needs a machine with one, and only the core.

    python -m benchmarks.speed.device [--out benchmarks/results/device.md]

Every part computes the same thing both ways, on all cores and on the device, and checks one against the other. CPU seconds are wall
seconds; where only a share of the work was done on the CPU, they are scaled up, and the table says from what. Compiled code is loaded
beforehand. ``--device cpu:0 --scale 0.02`` takes the device's path on a machine without one.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

# A run gives BLAS one thread; here the numbers are to be those of a run.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import torch

from benchmarks.speed.device_bench import Bench, failed, say
from benchmarks.speed.device_parts import PARTS


def main() -> None:
    """Run the parts, print the tables, write them to ``--out`` after each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--seconds", type=float, default=240, help="start no part later than this")
    options = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    bench, start = Bench(device=options.device, scale=options.scale, threads=threads), time.perf_counter()
    for name in options.parts:
        began = time.perf_counter() - start
        if began > options.seconds:
            bench.note(name, f"left out after {began:.0f} s")
            continue
        say(f"-- {name}, at {began:.0f} s")
        try:
            PARTS[name](bench)
        except Exception:
            failed(bench, name)
        if options.out:
            options.out.write_text(bench.page(time.perf_counter() - start))
    say("\n" + bench.page(time.perf_counter() - start))


if __name__ == "__main__":
    main()
