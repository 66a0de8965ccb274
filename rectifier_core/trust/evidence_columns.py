"""What speaks for a feature being its item's own: the columns of evidence of one modality, and which wrong pairs to hold them against; a
leaf of trust.

By behaviour: the cosine of the projected feature and the anchor, how reliable the anchor is (two halves of the log), how much the feature
says (the length of its projection), their products, and the cosine again with the leading axes of behaviour weighing less. By other
modalities: how well the two features fit each other, as it stands and weighed by how far the other modality is itself believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import unit_rows
from rectifier_core.base.records import Anchors, Projection
from rectifier_core.base.seeding import derive_seed, generator
from rectifier_core.trust.likelihood_ratio import Pairings, contrast, re_pairings

CrossModalProjections = Mapping[tuple[str, str], Projection]
"""Projections between modalities by (projected modality, target modality)."""
ModalityTrusts = Mapping[str, Float64]
"""Trust in each other modality by behaviour, [I] in [0, 1]; NaN where it is unknown."""


class EvidenceColumns:
    """One modality: its judged ``rows`` (those with a feature and an anchor) and the evidence for a feature put on an item."""

    def __init__(
        self,
        modality: str,
        projections: Mapping[str, Projection],
        cross_modal: CrossModalProjections,
        anchors: Anchors,
        seed: int,
    ) -> None:
        self.modality, self.projection, self._seed = modality, projections[modality], seed
        self.rows: Int64 = np.flatnonzero(~np.isnan(self.projection.alignment))
        self._folds = self.projection.fold[self.rows]
        reliability = anchors.reliability.astype(np.float64)
        self._reliability = reliability - (reliability[self.rows].mean() if len(self.rows) else 0.0)
        lengths = np.log(np.maximum(self.projection.length.astype(np.float64), 1e-12))
        self._length = lengths - (lengths[self.rows].mean() if len(self.rows) else 0.0)
        self._even = _evened(self.projection, self.rows)
        self.partners = {
            (b if a == modality else a): Partner(x, projecting=a == modality)
            for (a, b), x in cross_modal.items()
            if modality in (a, b)
        }

    def contrast(self, pairs: Pairings, modality_trusts: ModalityTrusts) -> tuple[Float64, Float64]:
        """Log likelihood ratios [N] of the actual pairs and [M] of the wrong ``pairs``, which are positions among the judged rows.

        Only the partners named in ``modality_trusts`` count.
        """
        actual = self._columns(self.rows, self.rows, modality_trusts)
        wrong = self._columns(self.rows[pairs[0]], self.rows[pairs[1]], modality_trusts)
        return contrast(actual, self._folds, wrong, (self._folds[pairs[0]], self._folds[pairs[1]]))

    def anywhere(self, least: int) -> Pairings:
        """Wrong pairs of all kinds, never across folds: no map has seen either half of a pair."""
        return re_pairings(self._folds, self.rng("null"), least=least)

    def alike(self, groups: int, category: Int32 | None, least: int) -> dict[str, Pairings]:
        """Wrong pairs among alike items, by what makes them alike: at most ``groups`` groups by behaviour, and the category if given."""
        target = np.ascontiguousarray(self.projection.target[self.rows])
        count = int(np.clip(len(self.rows) // 50, 1, groups))
        kmeans = faiss.Kmeans(
            target.shape[1], count, niter=15, spherical=True, seed=derive_seed(self._seed, "trust", "alike") % (1 << 31)
        )
        kmeans.train(target)
        found = {"items that behaviour puts together": kmeans.index.search(target, 1)[1][:, 0].astype(np.int32)}
        if category is not None:
            known = category[self.rows]
            # Items of no category are alike to nobody: groups of one.
            alone = int(known.max(initial=0)) + 1 + np.arange(len(known), dtype=np.int32)
            found["items of one category"] = np.where(known < 0, alone, known).astype(np.int32)
        return {what: re_pairings(group, self.rng("alike", what), least=least) for what, group in found.items()}

    def _columns(self, features: Int64, items: Int64, modality_trusts: ModalityTrusts) -> Float64:
        """The evidence for each feature put on each item: [N, F]."""
        fit = _inner(self.projection.projected, features, self.projection.target, items)
        reliability, length = self._reliability[items], self._length[features]
        even = _inner(self._even[0], features, self._even[1], items)
        columns = [fit, fit * reliability, reliability, fit * length, length, even]
        agreeing = believed = weight = np.zeros(len(items))
        partners = [(modality_trusts[m], x) for m, x in self.partners.items() if m in modality_trusts]
        for partner_trust, partner in partners:
            agreement, there = partner.agreement(features, items)
            trusted = np.where(there, np.nan_to_num(partner_trust[items], nan=0.5), 0.0)
            agreeing, believed, weight = agreeing + agreement, believed + trusted * agreement, weight + trusted
        if partners:
            columns += [agreeing, believed, weight, weight * fit]
        return np.stack(columns, axis=1)

    def rng(self, *name: str) -> np.random.Generator:
        """A generator of this modality's own."""
        return generator(self._seed, "trust", self.modality, *name)


@dataclass(frozen=True, slots=True)
class Partner:
    """Another modality as evidence; ``projecting`` True where the judged modality is the one that is projected."""

    between: Projection
    projecting: bool

    def agreement(self, features: Int64, items: Int64) -> tuple[Float64, Bool]:
        """How well each feature fits each item's partner feature, 0 where the item has none, and whether it has."""
        seen, placed = self.between.projected, self.between.target
        there: Bool = np.asarray(
            (placed if self.projecting else seen)[items].any(axis=1)
            & (seen if self.projecting else placed)[features].any(axis=1)
        )
        fit = _inner(seen, features, placed, items) if self.projecting else _inner(placed, features, seen, items)
        return fit, there


def _evened(projection: Projection, rows: Int64) -> tuple[Float32, Float32]:
    """Projected features and anchors with the anchors' spectrum half evened out, unit rows both.

    The leading axes of behaviour (what is popular, the broadest tastes) crowd out the finer ones in a cosine. How much they should weigh
    differs from catalog to catalog, so the classifier gets both.
    """
    spread, axes = np.linalg.eigh(
        projection.target[rows].T.astype(np.float64) @ projection.target[rows] / max(1, len(rows))
    )
    scale = np.maximum(spread / max(float(spread[-1]), 1e-12), 1e-4) ** -0.25
    turn = (axes * scale).astype(np.float32)
    return unit_rows(projection.projected @ turn), unit_rows(projection.target @ turn)


def _inner(left: Float32, left_rows: Int64, right: Float32, right_rows: Int64, *, block: int = 1 << 16) -> Float64:
    """Row by row inner products, without a copy of either matrix."""
    found = np.empty(len(left_rows))
    for start in range(0, len(left_rows), block):
        at = slice(start, start + block)
        found[at] = np.einsum("ij,ij->i", left[left_rows[at]], right[right_rows[at]])
    return found
