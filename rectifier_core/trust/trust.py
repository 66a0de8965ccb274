"""Stage: trust, how likely each item's own feature is truly its own, and how many are not, with no labels.

A feature is compared with its item by up to two kinds of evidence: behaviour (the projection against the anchor) and the item's other
modalities (``rectifier_core.projection.cross_modal``). The law of a mismatched feature is known by construction:
it is that of features deliberately put
on other items. So evidence is the log likelihood ratio of a small classifier that tells actual pairs from re-paired ones (noise-contrastive
estimation), the mismatch rate is the share of the re-paired law in the actual scores, and an item's probability is its posterior
(``rectifier_core.trust.mixture``).

Source: two components with one known, as in novelty detection (Blanchard et al., JMLR 2010) and DivideMix (Li et al., ICLR 2020).

What re-paired means decides what is counted. Re-paired anywhere, a swap among alike items is nearly invisible, and the rate is that of
mix-ups among unlike ones. So the interval is stretched by what the same estimate says when features are re-paired among alike items only:
items that behaviour puts together, and items of one category where the catalog has them. ``low_unlike`` and ``high_unlike`` are the
interval without that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from rectifier_core.base.arrays import Float32, Float64, Int32
from rectifier_core.base.numerics import logit, separation
from rectifier_core.base.records import Anchors, Projection, Trust
from rectifier_core.trust.config import TrustConfig
from rectifier_core.trust.evidence_columns import CrossModalProjections, EvidenceColumns, ModalityTrusts
from rectifier_core.trust.likelihood_ratio import Pairings
from rectifier_core.trust.mixture import Mixture, fit_mixture

T = TypeVar("T")


def estimate_trust(
    projections: Mapping[str, Projection],
    cross_modal: CrossModalProjections,
    anchors: Anchors,
    config: TrustConfig,
    *,
    seed: int,
    category: Int32 | None = None,
) -> dict[str, Trust]:
    """Rate, interval and per-item probability of every modality of one catalog.

    ``category`` [I] numbers the items' categories, negative where there is none. A modality can be told when its evidence separates and
    behaviour identifies it or one of its partners: two modalities that merely disagree do not say which of them is wrong. Where whole
    rows are another item's, features fit each other all the same: modalities whose errors are correlated with it are ignored.
    """
    cases = {m: EvidenceColumns(m, projections, cross_modal, anchors, seed) for m in projections}
    alone = _at_once({m: partial(_judge, case, {}, config) for m, case in cases.items()})
    modality_trusts = {m: _modality_trust(case, alone[m]) for m, case in cases.items()}
    usable = {m for m, x in alone.items() if x.mixture is not None}
    partners = {m: {x: modality_trusts[x] for x in case.partners} for m, case in cases.items()}
    together = alone | _at_once(
        {m: partial(_judge, case, partners[m], config) for m, case in cases.items() if case.partners}
    )
    biased = {m for m in cases if _correlated_errors(alone[m], together[m])}

    def trust_of(m: str, case: EvidenceColumns) -> Trust:
        others = {x: modality_trusts[x] for x in case.partners if not biased & {m, x}}
        found = (
            together[m] if len(others) == len(case.partners) else _judge(case, others, config) if others else alone[m]
        )
        if found.mixture is None or not usable & {m, *others}:
            return _cannot_tell(case, alone[m])
        trust = _told(case, alone[m], found, found.mixture, _among_alike(case, others, category, config))
        ignored = " and ".join(sorted(case.partners.keys() - others.keys()))
        return (
            replace(trust, reason=f"{trust.reason}; ignored {ignored}: both modalities look mismatched together")
            if ignored
            else trust
        )

    trusts = _at_once({m: partial(trust_of, m, case) for m, case in cases.items()})
    return {m: _without_behaviour(case, trusts, biased, config) for m, case in cases.items()}


def _at_once(work: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """What each piece of work gives, done by as many threads as torch has: a modality's judgement hears nothing of another's draws."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(work, pool.map(lambda x: x(), work.values()), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Evidence of the judged rows; ``mixture`` is None, and ``reason`` says why, where it tells nothing."""

    scores: Float64
    auc: float
    mixture: Mixture | None
    reason: str


def _judge(case: EvidenceColumns, modality_trusts: ModalityTrusts, config: TrustConfig) -> Judgement:
    count = len(case.rows)
    if count < config.min_items:
        reason = f"only {count} items have both a feature and an anchor, fewer than min_items = {config.min_items}"
        return Judgement(scores=np.full(count, np.nan), auc=float("nan"), mixture=None, reason=reason)
    found = _weigh(case, case.anywhere(config.null_pairs), modality_trusts, config, "bootstrap")
    kinds = " and ".join(["behaviour", *modality_trusts])
    words = f"actual features fit better than re-paired ones (AUC {found.auc:.3f} over {count:,} items), by {kinds}"
    return found if found.mixture is None else replace(found, reason=words)


def _weigh(
    case: EvidenceColumns, pairs: Pairings, modality_trusts: ModalityTrusts, config: TrustConfig, *name: str
) -> Judgement:
    """Actual against the wrong ``pairs``."""
    scores, null = case.contrast(pairs, modality_trusts)
    auc = separation(scores, null)
    reason = why_not(len(scores), len(null), auc, config)
    mixture = None if reason else fit_mixture(scores, null, resamples=config.resamples, rng=case.rng(*name))
    return Judgement(scores=scores, auc=auc, mixture=mixture, reason=reason or "")


def why_not(count: int, null_count: int, auc: float, config: TrustConfig) -> str | None:
    """Why evidence of this AUC over ``count`` actual and ``null_count`` re-paired scores tells nothing, None where it does."""
    error = float(np.sqrt((1 / max(1, count) + 1 / max(1, null_count)) / 12))
    if auc - 3 * error >= config.min_separation:
        return None
    return (
        f"actual features fit no better than re-paired ones: AUC {auc:.3f} with a standard error of {error:.3f} does not clear "
        f"min_separation = {config.min_separation}"
    )


def _correlated_errors(alone: Judgement, together: Judgement) -> bool:
    """True where behaviour finds far more mismatches than behaviour and the other modalities do together.

    Then whole rows were swapped: the features of a row fit each other, so they hide each other's errors.
    """
    return alone.mixture is not None and together.mixture is not None and alone.mixture.low > together.mixture.high


def _modality_trust(case: EvidenceColumns, found: Judgement) -> Float64:
    """Trust in a modality by behaviour alone, [I]; NaN where it is unknown."""
    trust = np.full(len(case.projection.alignment), np.nan)
    if found.mixture is not None:
        trust[case.rows] = found.mixture.probability(found.scores)
    return trust


def _among_alike(
    case: EvidenceColumns, modality_trusts: ModalityTrusts, category: Int32 | None, config: TrustConfig
) -> dict[str, Mixture | None]:
    """The mixture when features are re-paired among alike items only; None where these cannot be told apart."""
    found = {}
    for what, pairs in case.alike(config.alike_groups, category, config.null_pairs // 2).items():
        if len(np.unique(pairs[1])) >= config.min_items:
            seen = _weigh(case, pairs, modality_trusts, config, "alike", what)
            found[what] = seen.mixture if seen.auc >= config.min_alike_separation else None
    return found


def _told(
    case: EvidenceColumns, alone: Judgement, found: Judgement, mixture: Mixture, alike: Mapping[str, Mixture | None]
) -> Trust:
    cross_modal = found.scores - alone.scores if found is not alone else np.full(len(case.rows), np.nan)
    # The interval holds the rate by behaviour alone too: modalities with correlated errors hide some mismatches.
    by_behaviour = mixture.rate if alone.mixture is None else alone.mixture.rate
    low_unlike, high_unlike = min(mixture.low, by_behaviour), max(mixture.high, by_behaviour)
    low, high, reason = low_unlike, high_unlike, found.reason
    for what, among in alike.items():
        if among is None:
            reason += f"; mix-ups among {what} cannot be told and are not counted"
            continue
        low, high = min(low, among.low), max(high, among.high)
        reason += f"; with mix-ups among {what} at most {100 * max(among.high, high_unlike):.0f} %"
    return Trust(
        modality=case.modality,
        probability=_spread(case, mixture.probability(found.scores)),
        probability_upper=_spread(case, mixture.probability_upper(found.scores)),
        behaviour=_spread(case, alone.scores),
        cross_modal=_spread(case, cross_modal),
        mismatch_rate=mixture.rate,
        low=low,
        high=high,
        low_unlike=low_unlike,
        high_unlike=high_unlike,
        identifiable=True,
        separation=found.auc,
        reason=reason,
    )


def _cannot_tell(case: EvidenceColumns, alone: Judgement) -> Trust:
    nothing = np.full(len(case.projection.alignment), np.nan, np.float32)
    return Trust(
        modality=case.modality,
        probability=nothing,
        probability_upper=nothing,
        behaviour=_spread(case, alone.scores),
        cross_modal=nothing,
        mismatch_rate=None,
        low=None,
        high=None,
        low_unlike=None,
        high_unlike=None,
        identifiable=False,
        separation=alone.auc,
        reason=alone.reason or "other modalities disagree with it, and behaviour does not say which of them is wrong",
    )


def _spread(case: EvidenceColumns, values: Float64 | Float32) -> Float32:
    """Values of the judged rows as [I] float32, NaN elsewhere."""
    spread = np.full(len(case.projection.alignment), np.nan, np.float32)
    spread[case.rows] = values
    return spread


def _without_behaviour(
    case: EvidenceColumns, trusts: Mapping[str, Trust], biased: Set[str], config: TrustConfig
) -> Trust:
    """Add the items that have no anchor but another modality that can be told, and that is not wrong together with this one.

    That the two features fit says both are right; that they do not fit leaves open which is wrong, so the blame is shared out by how often
    either modality errs where behaviour can tell.
    """
    trust = trusts[case.modality]
    if trust.mismatch_rate is None:
        return trust
    probability, upper, cross_modal = trust.probability.copy(), trust.probability_upper.copy(), trust.cross_modal.copy()
    for name, partner in sorted(case.partners.items()):
        other, between = trusts[name].mismatch_rate, partner.between
        scores, null = between.alignment.astype(np.float64), between.null_alignment.astype(np.float64)
        both = ~np.isnan(scores)
        rows = np.flatnonzero(both & np.isnan(probability))
        if (
            biased & {case.modality, name}
            or other is None
            or not len(rows)
            or why_not(int(both.sum()), len(null), separation(scores[both], null), config) is not None
        ):
            continue
        mixture = fit_mixture(scores[both], null, resamples=config.resamples, rng=case.rng("without behaviour", name))
        either = 1 - (1 - trust.mismatch_rate) * (1 - other)
        spared = other * (1 - trust.mismatch_rate) / either if either > 0 else 0.5
        # How often either errs is better known where behaviour can tell than from the two features' agreement.
        ratio = logit(mixture.probability(scores[rows])) - logit(1 - mixture.rate)
        bound = logit(mixture.probability_upper(scores[rows])) - logit(1 - mixture.rate)
        fine, at_most = (1 / (1 + np.exp(-(x + logit(1 - either)))) for x in (ratio, bound))
        probability[rows], upper[rows] = fine + (1 - fine) * spared, at_most + (1 - at_most) * spared
        cross_modal[rows] = ratio
    return replace(trust, probability=probability, probability_upper=upper, cross_modal=cross_modal)
