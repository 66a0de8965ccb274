"""Metrics of a table and its runs for Prometheus: a textfile after every run, and the same over HTTP.

The textfile `<run.folder>/metrics/catalog_rectifier.prom` also keeps the counters and the last run between processes.
Times are timestamps. An age in a file would not grow when runs stop. The time of a day is its end, so
`time() - catalog_rectifier_newest_day_end_timestamp_seconds` is the freshness of the rows. Every series has the label `table`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from filelock import FileLock
from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

import rectifier_core
from rectifier_core.base.published_records import Status
from tasks.errors import InputError, RectifierError
from tasks.observe.config import WatchConfig
from tasks.observe.freshness import newest_data_day
from tasks.runs.day_journal import STATES, DayJournal
from tasks.table.files import storage_errors
from tasks.table.log import LOOK, open_table, visible_files
from tasks.table.trend import find_jumps, read_trend

PREFIX = "catalog_rectifier"
LOOPBACK = "127.0.0.1"
OUTCOMES = ("published", "unchanged", "refused", "bad_input", "held", "failed", "interrupted")
# Name: help, then the labels besides the table.
COUNTERS = {
    "runs_started": (
        "Runs that started. Those beyond the sum of catalog_rectifier_runs_total run now or were killed.",
    ),
    "runs": ("Runs that ended, by outcome.", "outcome"),
}
GAUGES = {
    "run_last_ended_timestamp_seconds": ("When a run last ended with this outcome.", "outcome"),
    "last_run_day_end_timestamp_seconds": ("The end of the day that the last run worked on.",),
    "last_run_ended_timestamp_seconds": ("When the last run ended.",),
    "last_run_exit_code": ("The exit status of the last run.",),
    "last_run_peak_memory_bytes": ("The most memory that the process of the last run used.",),
    "last_run_memory_limit_bytes": ("The memory that the process of the last run was allowed.",),
    "stage_seconds": ("Wall time of a stage of the last run.", "stage"),
    "stage_cpu_seconds": ("Processor time of a stage of the last run.", "stage"),
    "stage_peak_memory_bytes": ("The most memory used while a stage of the last run ran.", "stage"),
    "days": ("Days by how their last run ended. A dead run was killed.", "state"),
    "late_after_seconds": ("How long ago the newest published day may have ended.",),
    "table_version": ("The newest version of the table.",),
    "table_days": ("Days in the table.",),
    "newest_day_end_timestamp_seconds": ("The end of the newest published day. A backfill does not change it.",),
    "newest_day_rows": ("Rows of the newest published day.",),
    "table_seen_timestamp_seconds": ("When the table was read for these metrics.",),
    "found_day_end_timestamp_seconds": ("The end of the newest day that passed through the quality gate.",),
    "mismatch_rate_ratio": ("Estimated share of mismatched features on that day.", "modality"),
    "mismatch_rate_low_ratio": ("Lower end of the interval of the mismatch rate.", "modality"),
    "mismatch_rate_high_ratio": ("Upper end of the interval of the mismatch rate.", "modality"),
    "mismatch_rate_identifiable": ("Whether the mismatch rate can be estimated.", "modality"),
    "mismatch_rate_jumped": ("Whether the rate left the interval of the published day before.", "modality"),
    "items": ("Items of that day, by what happened to their feature.", "modality", "status"),
    "gate_value": ("What the quality gate measured on that day.", "check", "rule"),
    "gate_passed": ("Whether the check passed.", "check", "rule"),
    "served_version": ("The version that the feature store serves.",),
    "served_day_end_timestamp_seconds": ("The end of the day that the feature store serves.",),
    # Only the HTTP page has this one: it depends on when it is read.
    "table_readable": ("Whether the table could be read for this scrape.",),
}


class TableMetrics(Collector):
    """Every metric of one table, starting with the textfile of earlier runs.

    The values are kept here and not in `prometheus_client.Gauge`, whose values all processes share once Feast was imported.
    """

    def __init__(self, config: WatchConfig) -> None:
        self._config, self._table = config, config.publish.uri.rstrip("/").rsplit("/", 1)[-1]
        # By name, then by the values of the labels.
        self._values: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in (*COUNTERS, *GAUGES)}
        self._load(textfile(config.folder))

    def _load(self, path: Path) -> None:
        try:
            for family in text_string_to_metric_families(path.read_text(encoding="utf-8")):
                name = family.name.removeprefix(f"{PREFIX}_")
                if name in self._values:
                    order = ("table", *(COUNTERS | GAUGES)[name][1:])
                    values = {tuple(x.labels[label] for label in order): x.value for x in family.samples}
                    self._values[name] = values
        except (OSError, ValueError, KeyError):
            # No run ended yet, or the file is damaged: the counters start at 0, which Prometheus takes for a reset.
            self._values = {name: {} for name in self._values}

    def collect(self) -> Iterator[Metric]:
        """Return every metric that has a value."""
        yield InfoMetricFamily(PREFIX, "The version of the code.", value={"version": rectifier_core.__version__})
        for kind, metrics in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
            for name, (text, *labels) in metrics.items():
                family = kind(f"{PREFIX}_{name}", text, labels=["table", *labels])
                for values, value in self._values[name].items():
                    family.add_metric(values, value)
                if family.samples:
                    yield family

    def put(self, name: str, value: float | None, *labels: str) -> None:
        """Set one series, or leave it out if the value is not known."""
        if value is not None:
            self._values[name][self._table, *labels] = float(value)

    def count(self, name: str, amount: int, *labels: str) -> None:
        """Add to a counter."""
        key = (self._table, *labels)
        self._values[name][key] = self._values[name].get(key, 0.0) + amount

    def clear(self, *prefixes: str) -> None:
        """Drop the series of this table whose names start with one of the prefixes."""
        for name, series in self._values.items():
            if name.startswith(prefixes):
                self._values[name] = {labels: value for labels, value in series.items() if labels[0] != self._table}

    def set_day(self, name: str, day: str | None) -> None:
        """Set a time to the end of a day."""
        end = None if day is None else self._config.alerts.end_of(date.fromisoformat(day)).timestamp()
        self.put(f"{name}_day_end_timestamp_seconds", end)

    def set_days(self) -> None:
        """Set how many days are in each state, and when a day is late."""
        journal = DayJournal(self._config.run.folder, self._config.publish)
        states = Counter(dict.fromkeys((*STATES, "dead"), 0))
        for day, entry in journal.read_all().items():
            states["dead" if entry["state"] == "running" and not journal.is_held(day) else entry["state"]] += 1
        for state, days in states.items():
            self.put("days", days, state)
        self.put("late_after_seconds", self._config.alerts.late_after_hours * 3600)

    def set_table(self) -> None:
        """Set what the table, its trend and the feature store say now. Raises StorageError."""
        publish = self._config.publish
        table, rows, data_day = open_table(publish.uri), Counter[str](), None
        if table is not None:
            with storage_errors(publish.uri, "reading it", LOOK):
                files = visible_files(table)
                data_day = newest_data_day(publish, files)
                for file in files:
                    rows[file.day] += file.rows or 0
        trend = read_trend(publish, last=8).days
        self.clear("table_", "newest_", "found_", "mismatch_", "items", "gate_", "served_")
        newest = max(rows, default=None)
        self.put("table_version", None if table is None else table.version())
        self.put("table_days", len(rows))
        self.set_day("newest", None if data_day is None else data_day.isoformat())
        self.put("newest_day_rows", None if newest is None else rows[newest])
        self.put("table_seen_timestamp_seconds", time.time())
        if trend:
            self._set_trend(trend[-1], {x["modality"] for x in find_jumps(trend, trend[-1]["as_of"])})
        self._set_served()

    def _set_trend(self, last: Mapping[str, Any], jumped: set[str]) -> None:
        self.set_day("found", last["as_of"])
        for modality, facts in last["modalities"].items():
            self.put("mismatch_rate_ratio", facts["mismatch_rate"], modality)
            self.put("mismatch_rate_low_ratio", facts["low"], modality)
            self.put("mismatch_rate_high_ratio", facts["high"], modality)
            self.put("mismatch_rate_identifiable", facts["identifiable"], modality)
            self.put("mismatch_rate_jumped", modality in jumped, modality)
            for status in Status:
                self.put("items", facts[status.value], modality, status.value)
        for check in last["gate"]:
            self.put("gate_value", check["value"], check["name"], check["rule"])
            self.put("gate_passed", check["passed"], check["name"], check["rule"])

    def _set_served(self) -> None:
        try:
            served = json.loads(self._config.served.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self.put("served_version", served.get("version"))
        self.set_day("served", served.get("as_of"))


def textfile(run_folder: Path) -> Path:
    """The file for the textfile collector of node_exporter."""
    return run_folder / "metrics" / f"{PREFIX}.prom"


@contextmanager
def change_metrics(config: WatchConfig) -> Iterator[TableMetrics]:
    """Change the textfile in the block; the lock keeps other runs out. Raises OSError where it cannot be written."""
    path = textfile(config.folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".lock")):
        metrics = TableMetrics(config)
        for outcome in OUTCOMES:
            metrics.count("runs", 0, outcome)
        yield metrics
        metrics.set_days()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(metrics)
        write_to_textfile(str(path), registry)


class LiveMetrics(Collector):
    """The textfile's metrics with the table as it is now. A table that cannot be read is shown as a run last saw it."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config

    def collect(self) -> Iterator[Metric]:
        """Return every metric."""
        metrics = TableMetrics(self._config)
        metrics.set_days()
        try:
            metrics.set_table()
            metrics.put("table_readable", True)
        except RectifierError:
            metrics.put("table_readable", False)
        yield from metrics.collect()


@contextmanager
def serve_metrics(config: WatchConfig, port: int) -> Iterator[str]:
    """Serve on loopback for the block and yield the URL; port 0 takes a free one. Raises InputError where the port is taken."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(LiveMetrics(config))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; choose another") from error
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
