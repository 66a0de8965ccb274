"""A synthetic run for tests of the report: real stage outputs, written by the real store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.published_records import Check, QualityReport, Status
from rectifier_core.base.records import Affinity, Anchors, BalanceOutcome, Copies, Plan, Projection, Trust
from tasks.report.inputs import Outcome, ReportInputs
from tasks.report.render import write_report
from tasks.store.saved_records import save_record
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import Ref, StageStore, StageWriter
from tests.support.core_samples import affinity_of, anchors_of, plan_of, projection_of, trust_of
from tests.support.table.trend_samples import Rate, entry

WIDTH = 16
NASTY = "<script>alert(1)</script> & \"quoted\" 'title'"
GATE = QualityReport(
    checks=(
        Check(name="rows in = rows out + quarantined", value=1_000_003, bound=1_000_003, rule="equal to", passed=True),
        Check(name="image: marginal error", value=0.0413, bound=0.05, rule="at most", passed=True),
    )
)


class Stages:
    """Outputs of stages, built on first use."""

    store: StageStore
    key: tuple[Any, ...]

    def _once(self, kind: str, build: Callable[[StageWriter], None], *more: Any) -> Ref:
        return self.store.once(kind, (*self.key, *more), build)

    def _record(self, kind: str, record: Any) -> Ref:
        return self._once(kind, lambda writer: save_record(writer, record), getattr(record, "modality", ""))


class Run(Stages):
    """One synthetic run: of its items one in nine lacks the features, and one in seven has no interactions."""

    def __init__(
        self, root: Path, *, items: int = 90, identifiable: bool = True, labels: bool = True, anchors: bool = True
    ) -> None:
        self.store, self.items, self.identifiable = StageStore(root / "stages"), items, identifiable
        self.key = (items, identifiable, labels, anchors)
        self.rng = np.random.default_rng(items)
        self.present = np.arange(items) % 9 != 4
        self.trained = (np.arange(items) % 7 != 3) & anchors
        self.features = self._normal(items) * self.present[:, None]
        self.anchors = unit_rows(self.features + 0.5 * self._normal(items)) * self.trained[:, None]
        self.trust = np.where(self.present & self.trained & identifiable, self.rng.random(items), np.nan).astype(
            np.float32
        )
        self.labels = labels

    def inputs(
        self,
        modalities: tuple[str, ...] = ("image", "text"),
        *,
        outcome: Outcome = "published",
        version: int | None = 3,
        copies: bool = False,
    ) -> ReportInputs:
        """References to the stage outputs, built on first use; with ``copies``, eight items show a placeholder and three are variants."""
        source = self._once("source", lambda writer: self._source(writer, modalities), modalities)
        return ReportInputs(
            outcome=outcome,
            run_id="19980422-7f3a9c1e",
            as_of="1998-04-22",
            table_uri="s3://key:hunter2@bucket/features",
            table_version=version,
            source=source,
            anchors=self._record("anchors", self._anchors()),
            modalities={
                name: ModalityRefs(
                    features=source,
                    copies=self._record("copies" if copies else "no copies", self._copies(name, copies)),
                    projection=self._record("projection", self._projection(name)),
                    affinity=self._record("affinity", self._affinity(name)),
                    plan=self._record("plan", self._plan(name)),
                    trust=self._record("trust", self._trust(name)),
                )
                for name in modalities
            },
            rectified=self._once("rectified", lambda writer: self._rectified(writer, modalities), modalities),
            quality=GATE,
            stages={
                "source": replace(source, seconds=2.5, cpu_seconds=2.5, reused=False, peak_memory=412 << 20),
                "anchors": replace(source, seconds=61.2, cpu_seconds=61.2, reused=True, peak_memory=412 << 20),
            },
            peak_memory_bytes=812 << 20,
            memory_limit=4 << 30,
            provenance={"code version": "0.1.0", "config digest": "b1946ac92492"},
            config={"publish": {"uri": "warehouse", "aws_secret_access_key": "hunter2"}},
        )

    def _normal(self, rows: int) -> Float32:
        return self.rng.standard_normal((rows, WIDTH)).astype(np.float32)

    def _source(self, writer: StageWriter, modalities: tuple[str, ...]) -> None:
        ids = np.array([f"item-{i:07d}" for i in range(self.items)])
        items = np.flatnonzero(self.trained).astype(np.int32).repeat(2)
        writer.array("item_ids", ids)
        writer.array("users", np.zeros(len(items), np.int32))
        writer.array("items", items)
        for name in modalities:
            writer.array(f"features-{name}", self.features)
            writer.array(f"present-{name}", self.present)
        if self.labels:
            titles = [NASTY if i % 2 else f"Title {i} " + "long " * 200 for i in range(self.items)]
            table = pl.DataFrame(
                {"item_id": ids, "title": titles, "category": ["Sci-Fi & <b>Fantasy</b>"] * self.items}
            )
            table.write_parquet(writer.folder / "labels.parquet")
        missing = int((~self.present).sum())
        described = {"column": "embedding", "width": WIDTH, "missing": missing}
        counts = {
            "catalog_rows_read": self.items + 8,
            "items": self.items,
            "items_quarantined": {"null_id": 2, "duplicate_id": 6},
            "interactions_read": 1000 + len(items),
            "interactions_used": len(items),
            "not_positive": 900,
            "anonymous": 12,
            "repeats_merged": 69,
            "interactions_quarantined": {"unknown_item": 31, "null_item": 0},
            "features_quarantined": {name: {"zero_norm": 0} for name in modalities},
            "features_missing": {name: {"null": missing - 1, "zero": 1} for name in modalities},
        }
        reading = {"input": "log", "column": "event_time", "key": "source.time_column", "taken_for": "days since 1970"}
        writer.notes({"readings": [reading], "warnings": ["no event on 1998-04-22"], "newest_event": "1998-04-21"})
        writer.meta({"counts": counts, "modalities": dict.fromkeys(modalities, described), "num_users": 1})

    def _rectified(self, writer: StageWriter, modalities: tuple[str, ...]) -> None:
        usual = np.where(self.trained, Status.RECTIFIED.code, Status.PASSED_THROUGH.code)
        status = np.where(self.present, usual, Status.MISSING.code)
        for name in modalities:
            writer.array(f"status-{name}", status.astype(np.int8))
            writer.array(f"trust-{name}", self.trust)
            writer.array(f"moved-{name}", np.where(np.isnan(self.trust), np.float32(0), 1 - self.trust))

    def _anchors(self) -> Anchors:
        epochs = 300 if self.trained.any() else 0
        losses, recalls = np.linspace(0.7, 0.2, epochs), np.append(np.linspace(0.1, 0.3, epochs), 0.25)
        return replace(anchors_of(self.anchors, self.trained), losses=losses, recalls=recalls)

    def _projection(self, name: str) -> Projection:
        both = self.present & self.trained
        projected = unit_rows(self.features)
        scores = np.where(both, np.einsum("ij,ij->i", projected, self.anchors), np.nan).astype(np.float32)
        null = (0.3 * self._normal(self.items)[:, 0])[both]
        return replace(
            projection_of(projected, self.anchors, scores, null),
            modality=name,
            length=np.linalg.norm(self.features, axis=1),
            fold=np.where(both, 0, -1).astype(np.int32),
            kept=both,
            ridge=12.5,
        )

    def _affinity(self, name: str) -> Affinity:
        donors = np.flatnonzero(self.present)
        neighbours = donors[self.rng.integers(0, len(donors), (self.items, 4))].astype(np.int32)
        scores = -np.sort(-self._normal(self.items)[:, :4])
        neighbours[~self.trained], scores[~self.trained] = -1, -np.inf
        found = affinity_of(neighbours, np.ascontiguousarray(scores))
        return replace(found, modality=name, recall=0.993, index="ivf")

    def _plan(self, name: str) -> Plan:
        both = np.flatnonzero(self.present & self.trained)
        own = np.zeros(self.items, np.float32)
        own[both] = 1
        return replace(
            plan_of(np.concatenate([[0], np.cumsum(own)]), both, own[both]),
            modality=name,
            marginal_errors=0.5 * 0.9 ** np.arange(40.0) if len(both) else np.empty(0),
            iterations=40 if len(both) else 0,
            column_sums=own,
            column_error=0.0082,
            outcome=BalanceOutcome.MAX_ITERATIONS if len(both) else BalanceOutcome.EMPTY,
        )

    def _trust(self, name: str) -> Trust:
        rates = (0.208, 0.163, 0.259, 0.181, 0.231) if self.identifiable else None
        return replace(trust_of(self.trust, rates), modality=name)

    def _copies(self, name: str, some: bool) -> Copies:
        group = np.full(self.items, -1, np.int32)
        there = np.flatnonzero(self.present)
        if some:
            group[there[10:18]], group[there[20:23]] = 0, 1
        unlike, likeness = np.array([True, False])[: 2 * some], np.array([0.013, 0.71], np.float32)[: 2 * some]
        return Copies(modality=name, group=group, unlike=unlike, likeness=likeness)


def trend(days: int, *, run_id: str = "19980422-7f3a9c1e", jump: bool = True) -> tuple[dict[str, Any], ...]:
    """Days up to the run's: the rate of images varies and jumps on the last day, that of texts is unknown at first."""
    rng = np.random.default_rng(days)
    entries: list[dict[str, Any]] = []
    for back in range(days - 1, -1, -1):
        day = (date(1998, 4, 22) - timedelta(days=back)).isoformat()
        level = float(0.10 + 0.01 * rng.standard_normal() + (0.12 if jump and not back else 0))
        image: Rate = (level, level - 0.02, level + 0.03)
        text: Rate = (0.05, 0.0, 0.08) if back < days // 2 else None
        outcome = "refused" if back % 9 == 4 else "published"
        drift = None if back == days - 1 else float(0.97 - 0.02 * rng.random())
        made = entry(day, {"image": image, "text": text}, outcome=outcome, drift=drift, version=days - back)
        made["modalities"]["image"] |= {"low_unlike": level - 0.01, "high_unlike": level + 0.01}
        entries.append(made)
    if entries:
        entries[-1]["run_id"] = run_id
    return tuple(entries)


def written(folder: Path, inputs: ReportInputs) -> tuple[str, dict[str, Any], str]:
    """Write a report; the page, the facts beside it and the page's text."""
    page = write_report(folder, inputs).read_text()
    return page, json.loads((folder / "report.json").read_text()), PageText(page).text


class PageText(HTMLParser):
    """The words of a page without its style sheet and script, and every attribute."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self._tag = ""
        self.feed(page)
        self.text = " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._tag not in ("style", "script"):
            self.words.append(data)
