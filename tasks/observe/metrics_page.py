"""Metrics in Prometheus's words: a textfile for node_exporter after every run, and the same over HTTP, looked at anew for every scrape.

Times are given, never ages: an age in a file would stand still when runs do. ``day`` times are the end of the day that the rows are of, so
freshness is ``time() - catalog_rectifier_newest_day_end_timestamp_seconds``, by day and not by last write. Every series carries the table.
Labels are bounded: stages and checks by the config's modalities, outcomes by a list.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

import rectifier_core
from rectifier_core.base.published_records import Status
from tasks.errors import RectifierError
from tasks.observe.config import AlertsConfig, WatchConfig
from tasks.observe.freshness import judge_freshness
from tasks.observe.metrics_facts import count_days, see_served, see_table
from tasks.observe.metrics_state import METRICS, State, load_state
from tasks.table.config import PublishConfig

PREFIX = "catalog_rectifier"
TEXTFILE = f"{PREFIX}.prom"
Series = Iterable[tuple[tuple[str, ...], float | int | bool | None]]


class _Families:
    """Builds families whose every series carries the table's name; a value of None is left out."""

    def __init__(self, table: str) -> None:
        self._table = table

    def gauge(self, name: str, told: str, value: float | int | bool | None) -> Iterator[Metric]:
        yield from self.gauges(name, told, (), [((), value)])

    def gauges(self, name: str, told: str, labels: tuple[str, ...], series: Series) -> Iterator[Metric]:
        family = GaugeMetricFamily(f"{PREFIX}_{name}", told, labels=["table", *labels])
        yield from self._filled(family, series)

    def counters(self, name: str, told: str, labels: tuple[str, ...], series: Series) -> Iterator[Metric]:
        family = CounterMetricFamily(f"{PREFIX}_{name}", told, labels=["table", *labels])
        yield from self._filled(family, series)

    def _filled(self, family: Any, series: Series) -> Iterator[Metric]:
        for values, value in series:
            if value is not None:
                family.add_metric([self._table, *values], float(value))
        if family.samples:
            yield family


def table_name(config: PublishConfig) -> str:
    """The table's name among metrics: the last part of its URI."""
    return config.uri.rstrip("/").rsplit("/", 1)[-1]


def families(state: State, config: WatchConfig, now: datetime | None) -> Iterator[Metric]:
    """Every metric; ``now`` is None where what is written will be read later, and nothing may be said that depends on when."""
    make, alerts = _Families(table_name(config.publish)), config.alerts
    yield InfoMetricFamily(
        PREFIX, "The pipeline that these metrics are of.", value={"version": rectifier_core.__version__}
    )
    yield from _runs(make, state)
    if state["run"] is not None:
        yield from _last_run(make, state["run"], alerts)
    told = "Days of the journal by how their last run stands; dead is one that was killed."
    yield from make.gauges(
        "days",
        told,
        ("state",),
        [((x,), count) for x, count in sorted(count_days(config.run.folder, config.publish).items())],
    )
    late_after = alerts.late_after_hours * 3600
    yield from make.gauge("late_after_seconds", "How long ago the newest published day may have ended.", late_after)
    if state["seen"] is not None:
        yield from _table(make, state["seen"], alerts)
        yield from _found(make, state["seen"], alerts)
        yield from _served(make, see_served(config.served), alerts)
        if now is not None:
            newest = state["seen"]["newest_day"]
            late = judge_freshness(None if newest is None else date.fromisoformat(newest), alerts, now).late
            yield from make.gauge("late", "Whether a day is missing that should be published by now.", late)


def _runs(make: _Families, state: State) -> Iterator[Metric]:
    told = "Runs that began; those beyond the sum of catalog_rectifier_runs_total are under way or were killed."
    yield from make.counters("runs_started", told, (), [((), state["started"])])
    ended = sorted(state["ended"].items())
    yield from make.counters(
        "runs", "Runs that ended, by outcome.", ("outcome",), [((x,), found["count"]) for x, found in ended]
    )
    last = [((x,), found["last"]) for x, found in ended]
    yield from make.gauges("run_last_ended_timestamp_seconds", "When a run last ended so.", ("outcome",), last)


def _last_run(make: _Families, run: Mapping[str, Any], alerts: AlertsConfig) -> Iterator[Metric]:
    yield from make.gauge(
        "last_run_day_end_timestamp_seconds", "When the day ended that the last run was of.", _end(run["as_of"], alerts)
    )
    yield from make.gauge("last_run_started_timestamp_seconds", "When the last run began.", run["started"])
    yield from make.gauge("last_run_ended_timestamp_seconds", "When the last run ended.", run["ended"])
    yield from make.gauge("last_run_exit_code", "The exit status of the last run.", run["exit_code"])
    yield from make.gauge(
        "last_run_peak_memory_bytes", "The most memory that the last run's process held.", run["peak_memory"]
    )
    yield from make.gauge(
        "last_run_memory_limit_bytes", "What the last run's process was allowed to hold.", run["memory_limit"]
    )
    for key, name, told in (
        ("seconds", "stage_seconds", "What a stage of the last run took by the clock."),
        ("cpu_seconds", "stage_cpu_seconds", "What a stage of the last run took of the processors."),
        ("peak_memory", "stage_peak_memory_bytes", "The most that was held while a stage of the last run was built."),
        ("planned_memory", "stage_planned_memory_bytes", "What a stage of the last run was planned to hold."),
    ):
        yield from make.gauges(
            name, told, ("stage",), [((x,), found[key]) for x, found in sorted(run["stages"].items())]
        )


def _table(make: _Families, seen: Mapping[str, Any], alerts: AlertsConfig) -> Iterator[Metric]:
    yield from make.gauge("table_version", "The newest version of the table.", seen["version"])
    yield from make.gauge("table_days", "How many days the table shows.", seen["days"])
    told = "When the newest published day ended; a backfill of an earlier day does not change it."
    yield from make.gauge("newest_day_end_timestamp_seconds", told, _end(seen["newest_day"], alerts))
    yield from make.gauge("newest_day_rows", "Rows of the newest published day.", seen["rows"])
    yield from make.gauge("table_seen_timestamp_seconds", "When the table was looked at for these metrics.", seen["at"])


def _found(make: _Families, seen: Mapping[str, Any], alerts: AlertsConfig) -> Iterator[Metric]:
    found, gate = sorted(seen["modalities"].items()), seen["gate"]
    yield from make.gauge(
        "found_day_end_timestamp_seconds",
        "When the newest day ended that a run judged.",
        _end(seen["found_day"], alerts),
    )
    for key, name, told in (
        ("mismatch_rate", "mismatch_rate_ratio", "Estimated share of mismatched features on the newest judged day."),
        ("low", "mismatch_rate_low_ratio", "Lower end of the mismatch rate's interval."),
        ("high", "mismatch_rate_high_ratio", "Upper end of the mismatch rate's interval."),
        ("identifiable", "mismatch_rate_identifiable", "Whether the mismatch rate can be told."),
    ):
        yield from make.gauges(name, told, ("modality",), [((m,), x[key]) for m, x in found])
    jumped = [((m,), m in seen["jumped"]) for m, _ in found]
    yield from make.gauges(
        "mismatch_rate_jumped",
        "Whether the rate left its interval since the published day before.",
        ("modality",),
        jumped,
    )
    items = [((m, status.value), x[status.value]) for m, x in found for status in Status]
    yield from make.gauges(
        "items", "Items of the newest judged day, by what was done with their feature.", ("modality", "status"), items
    )
    for key, name, told in (
        ("value", "gate_value", "What the quality gate measured on the newest judged day."),
        ("bound", "gate_bound", "What the quality gate compares with."),
        ("passed", "gate_passed", "Whether the check passed."),
    ):
        yield from make.gauges(name, told, ("check", "rule"), [((x["name"], x["rule"]), x[key]) for x in gate])


def _served(make: _Families, served: Mapping[str, Any], alerts: AlertsConfig) -> Iterator[Metric]:
    yield from make.gauge("served_version", "The version that the feature store serves.", served.get("version"))
    yield from make.gauge(
        "served_day_end_timestamp_seconds",
        "When the day ended that the feature store serves.",
        _end(served.get("as_of"), alerts),
    )
    yield from make.gauge(
        "served_since_timestamp_seconds", "Since when the feature store serves it.", served.get("since")
    )
    yield from make.gauge("served_rows", "Rows that the feature store serves.", served.get("rows"))


def _end(day: str | None, alerts: AlertsConfig) -> float | None:
    return None if day is None else alerts.end_of(date.fromisoformat(day)).timestamp()


class _Fixed(Collector):
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


class LiveMetrics(Collector):
    """Looks at the table anew whenever it is asked; a table that cannot be read is shown as a run last saw it, and that is said."""

    def __init__(self, config: WatchConfig) -> None:
        self._config = config

    def collect(self) -> Iterator[Metric]:
        """What Prometheus is told."""
        state, start, read = load_state(self._config.folder), time.monotonic(), True
        try:
            state["seen"] = see_table(self._config.publish)
        except RectifierError:
            read = False
        yield from families(state, self._config, datetime.now(UTC))
        make = _Families(table_name(self._config.publish))
        yield from make.gauge("table_readable", "Whether the table could be looked at for this scrape.", read)
        yield from make.gauge("scrape_seconds", "What looking at the table took.", time.monotonic() - start)


def write_metrics(state: State, config: WatchConfig) -> Path:
    """Write ``<run.folder>/metrics/catalog_rectifier.prom``, whole or not at all; OSError where it cannot be written."""
    registry = CollectorRegistry()
    registry.register(_Fixed(families(state, config, None)))
    path = config.folder / METRICS / TEXTFILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_to_textfile(str(path), registry)
    return path
