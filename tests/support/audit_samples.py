"""A day to audit with known truth: real stage outputs, categories that buyers keep apart, swapped images, nasty labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Copies, Plan, Projection, Trust
from tasks.audit.inputs import AuditInputs
from tasks.store.stage_outputs import ModalityRefs
from tasks.store.store import StageStore, StageWriter
from tests.support.core_samples import anchors_of, plan_of, projection_of, trust_of
from tests.support.report_samples import Stages

CATEGORIES = ("Kitchen", "Toys", "Garden", "Books", "<b>Art</b>")
NASTY = "=HYPERLINK(\"http://evil\")<script>alert(1)</script> & 'x'"
WIDTH = 12
PICTURE = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PICTURES = (PICTURE, "https://pictures.example/a?b=1&c=2", "javascript:alert(1)", "file:///etc/passwd", None)


class Day(Stages):
    """400 items; images of one in ten are swapped in a cycle, texts never; a few items lack things, four images are one placeholder."""

    def __init__(
        self, root: Path, *, items: int = 400, integer_ids: bool = False, labels: bool = True, identifiable: bool = True
    ) -> None:
        self.store, self.items = StageStore(root / "stages"), items
        self.labels, self.identifiable = labels, identifiable
        self.key = (items, integer_ids, labels, identifiable)
        rng = np.random.default_rng(items)
        names = [("-" if i == 11 else "item-") + str(i) for i in range(items)]
        self.ids = np.arange(items) * 7 if integer_ids else np.array(names)
        self.category = np.arange(items) % len(CATEGORIES)
        centres = 1.2 * rng.standard_normal((len(CATEGORIES), WIDTH))
        self.places = unit_rows((centres[self.category] + rng.standard_normal((items, WIDTH))).astype(np.float32))
        self.trained, self.present = np.ones(items, np.bool_), np.ones(items, np.bool_)
        self.trained[:6], self.present[4:9] = False, False
        self.placeholder = np.zeros(items, np.bool_)
        self.placeholder[20:24] = True
        free = np.flatnonzero(self.trained & self.present & ~self.placeholder)
        chosen = rng.permutation(free)[: items // 10]
        self.owner = np.arange(items)
        self.owner[chosen] = np.roll(chosen, 1)
        self.wrong = self.owner != np.arange(items)
        self.noise = {m: (0.25 * rng.standard_normal((items, WIDTH))).astype(np.float32) for m in ("image", "text")}

    def inputs(self) -> AuditInputs:
        """References to the stage outputs, built on first use."""
        return AuditInputs(
            run_id="20260630-0123456789ab",
            as_of="2026-06-30",
            seed=7,
            source=self._once("source", self._source),
            anchors=self._record("anchors", anchors_of(self.places, self.trained)),
            rectified=self._once("rectify", self._rectified),
            modalities={m: self._refs(m) for m in ("image", "text")},
        )

    def _refs(self, name: str) -> ModalityRefs:
        projection = self._record("projection", self._projection(name))
        # The audit does not read the affinity.
        return ModalityRefs(
            features=self._once("source", self._source),
            projection=projection,
            affinity=projection,
            plan=self._record("plan", self._plan(name)),
            trust=self._record("trust", self._trust(name)),
            copies=self._record("copies", self._copies(name)),
        )

    def _source(self, writer: StageWriter) -> None:
        writer.array("item_ids", self.ids)
        writer.array("items", np.flatnonzero(self.trained).astype(np.int32).repeat(3))
        for name in ("image", "text"):
            writer.array(f"present-{name}", self.present)
        if self.labels:
            columns = {
                "item_id": self.ids,
                "title": [NASTY if i % 3 else f"Thing {i}" for i in range(self.items)],
                "category": [CATEGORIES[c] for c in self.category],
                "text": [f"-{NASTY} {i}" for i in range(self.items)],
                "picture": [PICTURES[i % 5] for i in range(self.items)],
            }
            pl.DataFrame(columns).write_parquet(writer.folder / "labels.parquet")
        broken = pl.DataFrame({"item_id": self.ids[6:7], "modality": ["image"], "reason": ["zero_norm"]})
        broken.write_parquet(writer.folder / "quarantine-features.parquet")
        writer.meta({"counts": {}, "modalities": {}})

    def _projection(self, name: str) -> Projection:
        carried = self.places[self.owner if name == "image" else np.arange(self.items)] + self.noise[name]
        projected = np.ascontiguousarray(unit_rows(carried) * self.present[:, None])
        target = np.ascontiguousarray(self.places * self.trained[:, None])
        found = projection_of(projected, target, np.einsum("ij,ij->i", projected, target))
        return replace(found, modality=name, kept=self.present & self.trained)

    def probability(self, name: str) -> Float32:
        """Return the trust stage's probabilities: nearly the truth, all distinct, NaN where there is no evidence."""
        doubt = np.linspace(0.01, 0.06, self.items)
        found = np.where(self.wrong & (name == "image"), doubt, 1 - doubt)
        judged = self.present & self.trained & ~(self.placeholder & (name == "image"))
        return np.where(judged & (self.identifiable or name == "text"), found, np.nan).astype(np.float32)

    def _trust(self, name: str) -> Trust:
        known = self.identifiable or name == "text"
        rates = (float(self.wrong.mean()), 0.07, 0.14, 0.05, 0.12) if name == "image" else (0.0, 0.0, 0.02, None, None)
        p = self.probability(name)
        return replace(
            trust_of(p, rates if known else None),
            modality=name,
            probability_upper=np.minimum(1.5 * p, (1 + p) / 2).astype(np.float32),
            behaviour=np.log(p / (1 - p)).astype(np.float32),
        )

    def _rectified(self, writer: StageWriter) -> None:
        for name in ("image", "text"):
            moved = 1 - np.nan_to_num(self.probability(name), nan=1.0)
            writer.array(f"moved-{name}", np.where(self.present, moved, np.nan).astype(np.float32))
        writer.meta({})

    def _plan(self, name: str) -> Plan:
        everyone = np.arange(self.items + 1, dtype=np.int64)
        givers = np.argsort(self.owner) if name == "image" else everyone[:-1]
        return replace(plan_of(everyone, givers, np.ones(self.items)), modality=name)

    def _copies(self, name: str) -> Copies:
        held = self.placeholder & (name == "image")
        groups = int(held.any())
        return Copies(
            modality=name,
            group=np.where(held, 0, -1).astype(np.int32),
            unlike=np.ones(groups, np.bool_),
            likeness=np.full(groups, 0.01, np.float32),
        )
