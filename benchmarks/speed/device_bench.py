"""How ``benchmarks.speed.device`` times, checks and writes down; what it measures is in ``device_parts``."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

from benchmarks.shared.synthetic_log import machine

Made = TypeVar("Made")


@dataclass
class Bench:
    """Where the parts run, how large they are, and what they have found so far."""

    device: str
    scale: float
    threads: int
    checks: list[str] = field(default_factory=list)
    times: list[str] = field(default_factory=list)

    def size(self, full: int) -> int:
        """A size of the tables, scaled."""
        return max(1000, int(full * self.scale))

    def check(self, what: str, found: float, rule: str, bound: float) -> None:
        """Note a check: ``found`` is to be "<=" or ">=" the bound."""
        good = found <= bound if rule == "<=" else found >= bound
        self.checks.append(f"| {what} | {found:.4g} | {rule} {bound:.4g} | {'yes' if good else '**no**'} |")
        say(self.checks[-1])

    def note(self, what: str, said: str) -> None:
        """Note an observation that nothing is asked of."""
        self.checks.append(f"| {what} | {said} | | |")
        say(self.checks[-1])

    def time(self, what: str, here: float, there: float, peak: str, note: str = "") -> None:
        """Note seconds on the CPU and on the device."""
        self.times.append(f"| {what} | {here:.3g}{note} | {there:.3g} | {here / there:.1f} | {peak} |")
        say(self.times[-1])

    def timed(self, work: Callable[[], Made]) -> tuple[Made, float, str]:
        """What ``work`` gives, the seconds it takes, the device's included, and the device memory held at most, in MiB."""
        cuda = torch.device(self.device).type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        start = time.perf_counter()
        made = work()
        if cuda:
            torch.cuda.synchronize()
        return made, time.perf_counter() - start, f"{torch.cuda.max_memory_allocated() / 2**20:.0f}" if cuda else ""

    def page(self, seconds: float) -> str:
        """The tables so far."""
        name = torch.cuda.get_device_name() if torch.device(self.device).type == "cuda" else self.device
        scaled = "" if self.scale == 1 else f" --device {self.device} --scale {self.scale}"
        return "\n".join(
            [
                f"# The device\n\n{machine()} Device: {name}, CUDA {torch.version.cuda}.\n",
                f"Command: `python -m benchmarks.speed.device{scaled}`, {seconds:.0f} s.\n",
                "| check | found | wanted | good |\n|---|---|---|---|",
                *self.checks,
                "\n| work | CPU s | device s | times faster | device memory at most, MiB |\n|---|---|---|---|---|",
                *self.times,
                "",
            ]
        )


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)


def relative(found: object, wanted: object) -> float:
    """The largest difference, as a share of what is wanted."""
    return float(np.max(np.abs(np.asarray(found) / np.asarray(wanted) - 1)))


def failed(bench: Bench, name: str) -> None:
    """Say what went wrong and go on."""
    traceback.print_exc()
    bench.note(
        f"{name}: **failed**", f"{type(sys.exc_info()[1]).__name__}: {' '.join(str(sys.exc_info()[1]).split())[:200]}"
    )
