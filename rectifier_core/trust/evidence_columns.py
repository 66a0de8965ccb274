"""The evidence columns of one modality, and the wrong pairs that they are compared with.

- Behaviour: the cosine of projected feature and anchor, the anchor's reliability, the length of the projection, their products, and the
  cosine once more with the leading axes of the anchors damped.
- Other modalities: how well the two features fit each other, plain and weighted by the trust in the other modality.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import faiss
import numpy as np

from rectifier_core.base.arrays import Bool, Float32, Float64, Int32, Int64
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.records import Anchors, Projection
from rectifier_core.base.seeding import derive_seed, generator
from rectifier_core.trust.likelihood_ratio import Pairings, contrast, re_pairings

CrossModalProjections = Mapping[tuple[str, str], Projection]
"""Projections between modalities by (projected modality, target modality)."""
ModalityTrusts = Mapping[str, Float64]
"""Trust in each other modality by behaviour, [I] in [0, 1], NaN where it is unknown."""
BLOCK_ROWS = 1 << 16


class EvidenceColumns:
    """One modality, its judged ``rows`` (items with a feature and an anchor) and the evidence for any feature on any item."""

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
        self._reliability = self._centred(anchors.reliability.astype(np.float64))
        self._length = self._centred(np.log(np.maximum(self.projection.length.astype(np.float64), 1e-12)))
        self._damped = _damped(self.projection, self.rows)
        self.partners = {
            (b if a == modality else a): Partner(between, projecting=a == modality)
            for (a, b), between in cross_modal.items()
            if modality in (a, b)
        }

    def contrast(self, pairs: Pairings, modality_trusts: ModalityTrusts) -> tuple[Float64, Float64]:
        """Return the log likelihood ratios of the actual pairs [N] and of the wrong ``pairs`` [M].

        ``pairs`` are positions in ``rows``. Only the partners named in ``modality_trusts`` count.
        """
        actual = self._columns(self.rows, self.rows, modality_trusts)
        wrong = self._columns(self.rows[pairs[0]], self.rows[pairs[1]], modality_trusts)
        return contrast(actual, self._folds, wrong, (self._folds[pairs[0]], self._folds[pairs[1]]))

    def anywhere(self, least: int) -> Pairings:
        """Return wrong pairs of all kinds. Both sides are in one fold, so no map was fitted to either of them."""
        return re_pairings(self._folds, self.rng("null"), least=least)

    def alike(self, groups: int, category: Int32 | None, least: int) -> dict[str, Pairings]:
        """Return wrong pairs among similar items, by kind: one of at most ``groups`` clusters of anchors, or one category."""
        target = np.ascontiguousarray(self.projection.target[self.rows])
        count = int(np.clip(len(self.rows) // 50, 1, groups))
        seed = derive_seed(self._seed, "trust", "alike") % (1 << 31)
        kmeans = faiss.Kmeans(target.shape[1], count, niter=15, spherical=True, seed=seed)
        kmeans.train(target)
        kinds = {"items that behaviour puts together": kmeans.index.search(target, 1)[1][:, 0].astype(np.int32)}
        if category is not None:
            known = category[self.rows]
            # An item without a category gets a group of its own, so it joins no pair.
            alone = int(known.max(initial=0)) + 1 + np.arange(len(known), dtype=np.int32)
            kinds["items of one category"] = np.where(known < 0, alone, known).astype(np.int32)
        return {kind: re_pairings(group, self.rng("alike", kind), least=least) for kind, group in kinds.items()}

    def rng(self, *name: str) -> np.random.Generator:
        """Return this modality's generator for the named draw."""
        return generator(self._seed, "trust", self.modality, *name)

    def spread(self, values: Float64 | Float32 | float) -> Float32:
        """Return ``values`` of the judged rows as [I] float32, NaN for all other items."""
        spread = np.full(len(self.projection.alignment), np.nan, np.float32)
        spread[self.rows] = values
        return spread

    def _centred(self, values: Float64) -> Float64:
        return values - (values[self.rows].mean() if len(self.rows) else 0.0)

    def _columns(self, features: Int64, items: Int64, modality_trusts: ModalityTrusts) -> Float64:
        """Return the evidence [N, F] for each feature on each item."""
        fit = _inner(self.projection.projected, features, self.projection.target, items)
        reliability, length = self._reliability[items], self._length[features]
        damped = _inner(self._damped[0], features, self._damped[1], items)
        columns = [fit, fit * reliability, reliability, fit * length, length, damped]
        plain = weighted = weight = np.zeros(len(items))
        partners = [(modality_trusts[m], partner) for m, partner in self.partners.items() if m in modality_trusts]
        for partner_trust, partner in partners:
            agreement, known = partner.agreement(features, items)
            trusted = np.where(known, np.nan_to_num(partner_trust[items], nan=0.5), 0.0)
            plain, weighted, weight = plain + agreement, weighted + trusted * agreement, weight + trusted
        if partners:
            columns += [plain, weighted, weight, weight * fit]
        return np.stack(columns, axis=1)


@dataclass(frozen=True, slots=True)
class Partner:
    """Another modality as evidence. ``projecting`` is True where the judged modality is projected onto it."""

    between: Projection
    projecting: bool

    def agreement(self, features: Int64, items: Int64) -> tuple[Float64, Bool]:
        """Return the cosine of each feature and each item's partner feature, 0 where one is missing, and whether both exist."""
        own, other = self.between.projected, self.between.target
        if not self.projecting:
            own, other = other, own
        known: Bool = np.asarray(other[items].any(axis=1) & own[features].any(axis=1))
        return _inner(own, features, other, items), known


def _damped(projection: Projection, rows: Int64) -> tuple[Float32, Float32]:
    """Return projected features and anchors as unit rows, with the square root of the anchors' spectrum divided out.

    The leading axes of behaviour (popularity, the broadest tastes) dominate a cosine. How much they should count differs from catalog to
    catalog, so the classifier gets both cosines.
    """
    target = projection.target[rows]
    spectrum, axes = np.linalg.eigh(target.T.astype(np.float64) @ target / max(1, len(rows)))
    scale = np.maximum(spectrum / max(float(spectrum[-1]), 1e-12), 1e-4) ** -0.25
    damping = (axes * scale).astype(np.float32)
    return unit_rows(projection.projected @ damping), unit_rows(projection.target @ damping)


def _inner(left: Float32, left_rows: Int64, right: Float32, right_rows: Int64) -> Float64:
    """Return inner products row by row, by blocks, so that neither matrix is copied whole."""
    products = np.empty(len(left_rows))
    for block in row_blocks(len(left_rows), BLOCK_ROWS):
        products[block] = np.einsum("ij,ij->i", left[left_rows[block]], right[right_rows[block]])
    return products
