"""Sixty nights in a row of a small shop whose data drift: what the table, the disk, memory and Prefect's database grow to.

The demo gets a day's events and new features before each night. One process runs all nights, as a worker that lives long does, against a
Prefect server of the soak's own, so that whatever is not let go of adds up. Old days, runs and stage outputs are kept for as few nights as
make their end show within the soak.

    python -m benchmarks.nights.soak [--nights 60] [--incremental] [--changed 0.02] [--folder DIR] > benchmarks/results/soak.md
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from flows.config.prefect_settings import set_prefect_defaults

# What ends with age has to end within the soak: days of the table, run folders, the trend, files that the table dropped.
KEPT = 7
SETTINGS = (
    f"publish.keep_snapshots={KEPT}",
    f"publish.keep_trend={2 * KEPT}",
    "publish.vacuum_after_hours=0",
    f"run.keep_runs={KEPT}",
    "anchors.epochs=2",
    "anchors.embedding_size=16",
    "trust.resamples=20",
)
PLACES = ("data", "log", "trend", "stages", "runs", "temporary", "prefect")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Files and bytes after a night by place, what the process held then in bytes and how many files open, and how long the night took."""

    night: int
    day: str
    places: dict[str, tuple[int, int]]
    memory: int
    open_files: int
    seconds: float


def soak(folder: Path, nights: int, *, changed: float = 0.02, incremental: bool = False) -> Iterator[Sizes]:
    """Run that many nights below ``folder``; TMPDIR and PREFECT_HOME, where they lie in it, are watched too."""
    from flows.config.run_config import RunConfig
    from flows.nightly import rectify_catalog
    from tasks.demo.catalog import DemoConfig, add_day, write_demo

    demo = folder / "demo"
    write_demo(demo, DemoConfig(items=400, users=640, interactions=10_000, days=10))
    config = RunConfig.from_toml(demo / "run.toml", [*SETTINGS, f"incremental.enabled={str(incremental).lower()}"])
    table, runs = Path(config.publish.uri), Path(config.run.folder)
    for night in range(1, nights + 1):
        day, started = date.fromisoformat(add_day(demo, changed)["last_day"]), time.perf_counter()
        rectify_catalog(config, day)
        seconds = time.perf_counter() - started
        gc.collect()
        places = {
            "data": under(table, apart=("_delta_log",)),
            "log": under(table / "_delta_log"),
            "trend": under(table.with_name(f"{table.name}-trend")),
            "stages": under(runs / "stages"),
            "runs": under(runs, apart=("stages",)),
            "temporary": under(folder / "tmp"),
            "prefect": under(folder / "prefect"),
        }
        held = {"memory": resident_bytes(), "open_files": len(os.listdir("/proc/self/fd"))}
        yield Sizes(night=night, day=day.isoformat(), places=places, seconds=seconds, **held)


def resident_bytes() -> int:
    """What this process holds in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def under(folder: Path, apart: tuple[str, ...] = ()) -> tuple[int, int]:
    """How many files lie under a folder, but for those in folders called so, and their bytes."""
    sizes = [
        x.stat().st_size for x in folder.rglob("*") if x.is_file() and not set(apart) & set(x.relative_to(folder).parts)
    ]
    return len(sizes), sum(sizes)


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """A Prefect server of our own on loopback, with its database in ``home``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    with (home / "server.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            end = time.monotonic() + 300
            while not _answers(url):
                if server.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the Prefect server did not come up: {(home / 'server.log').read_text()[-2000:]}")
                time.sleep(0.5)
            yield url
        finally:
            server.terminate()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nights", type=int, default=60)
    parser.add_argument("--changed", type=float, default=0.02)
    parser.add_argument("--incremental", action="store_true")
    parser.add_argument("--as-json", action="store_true", help="One JSON object a night instead of the table.")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    found: list[Sizes] = []
    with tempfile.TemporaryDirectory() as made:
        folder = (options.folder or Path(made)).resolve()
        for name in ("prefect", "tmp"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        set_prefect_defaults()
        os.environ |= {
            "PREFECT_HOME": str(folder / "prefect"),
            "TMPDIR": str(folder / "tmp"),
            "PREFECT_LOGGING_LEVEL": "WARNING",
        }
        with prefect_server(folder / "prefect") as url:
            os.environ["PREFECT_API_URL"] = url
            tempfile.tempdir = None
            for sizes in soak(folder, options.nights, changed=options.changed, incremental=options.incremental):
                print(sizes, file=sys.stderr, flush=True)
                found.append(sizes)
    if options.as_json:
        print("\n".join(json.dumps(asdict(x)) for x in found))
        return
    given = f"--nights {options.nights} --changed {options.changed:g}" + (
        " --incremental" if options.incremental else ""
    )
    print(f"Command: `python -m benchmarks.nights.soak {given}`\n")
    print("\n".join(table_of(found)))


def table_of(found: list[Sizes]) -> list[str]:
    """One line for some of the nights, and what the second half of them added a night."""
    lines = [
        "| night | " + " | ".join(f"{x}: files, KiB" for x in PLACES) + " | memory, MiB | files open | s |",
        "|---" * (len(PLACES) + 4) + "|",
    ]
    for sizes in found:
        if sizes.night <= 3 or sizes.night % 5 == 0 or sizes is found[-1]:
            kib = [f"{files:,}, {size / 1024:,.0f}" for files, size in (sizes.places[x] for x in PLACES)]
            lines.append(
                f"| {sizes.night} | "
                + " | ".join(kib)
                + f" | {sizes.memory / 2**20:,.0f} | {sizes.open_files} | {sizes.seconds:.1f} |"
            )
    half, last = found[len(found) // 2], found[-1]
    later = last.night - half.night
    if later:
        grown = [f"{(last.places[x][1] - half.places[x][1]) / 1024 / later:,.1f}" for x in PLACES]
        lines.append(
            f"| KiB a night since {half.night} | "
            + " | ".join(grown)
            + f" | {(last.memory - half.memory) / 1024 / later:,.1f} | | |"
        )
    return lines


if __name__ == "__main__":
    main()
