"""Stage: trust. How likely each item's own feature is its own, and how many are not, without labels.

Evidence is the log likelihood ratio of a small classifier that separates actual pairs from re-paired ones. The pairs are compared by
behaviour (the projection against the anchor) and by the item's other modalities (``rectifier_core.projection.cross_modal``). The mismatch
rate is the share of the re-paired scores' distribution in the actual scores. An item's probability is its posterior
(``rectifier_core.trust.mixture``).

Source: two components of which one is known, as in novelty detection (Blanchard et al., JMLR 2010) and DivideMix (Li et al., ICLR 2020).

Differs from the papers:
- The known component is not assumed. It is measured on features that we put on other items ourselves.
- A swap between similar items is nearly invisible against pairs drawn anywhere. So the estimate is repeated with pairs among similar
  items, and the interval is widened to hold both. ``low_unlike`` and ``high_unlike`` are the interval without this step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from rectifier_core.base.arrays import Float64, Int32
from rectifier_core.base.numerics import logit, separation
from rectifier_core.base.records import Anchors, Projection, Trust
from rectifier_core.trust.blame import Blame, assign_blame
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
    """Return the mismatch rate, its interval and the probability of every item, by modality.

    ``category`` [I] numbers the items' categories, negative where there is none. A modality is identifiable if its evidence separates and
    behaviour identifies it or one of its partners: two modalities that only disagree do not show which of them is wrong. Where whole rows
    were swapped, the features of a row still fit each other. So modalities with correlated errors ignore each other.
    """
    cases = {m: EvidenceColumns(m, projections, cross_modal, anchors, seed) for m in projections}
    alone = _in_threads({m: partial(_judge, case, {}, config) for m, case in cases.items()})
    trusts_alone = {m: _trust_by_behaviour(case, alone[m]) for m, case in cases.items()}
    usable = {m for m, judgement in alone.items() if judgement.mixture is not None}
    partners = {m: {other: trusts_alone[other] for other in case.partners} for m, case in cases.items()}
    joint = alone | _in_threads({m: partial(_judge, cases[m], partners[m], config) for m in cases if partners[m]})
    correlated = {m for m in cases if _correlated_errors(alone[m], joint[m])}
    blame = _blame(cases, alone, correlated, config)

    def trust_of(m: str, case: EvidenceColumns) -> Trust:
        others = {name: trust for name, trust in partners[m].items() if not correlated & {m, name}}
        judgement = (
            alone[m] if not others else joint[m] if len(others) == len(partners[m]) else _judge(case, others, config)
        )
        if judgement.mixture is None or not usable & {m, *others}:
            return _unidentifiable(case, alone[m])
        trust = _identified(case, alone[m], judgement, judgement.mixture, _among_alike(case, others, category, config))
        if blame is not None and m in blame.rate:
            trust = _with_blame(trust, blame)
        trust = _bounded(trust, alone[m], config)
        ignored = " and ".join(sorted(case.partners.keys() - others.keys()))
        if not ignored:
            return trust
        together = f"{trust.reason}. {ignored} ignored: both modalities look mismatched together"
        return replace(trust, reason=together, whole_rows=True)

    return _in_threads({m: partial(trust_of, m, case) for m, case in cases.items()})


def _in_threads(calls: Mapping[str, Callable[[], T]]) -> dict[str, T]:
    """Return the result of every call. The order cannot matter, because every modality has its own generators."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(calls, pool.map(lambda call: call(), calls.values()), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Log likelihood ratios ``scores`` of the judged rows. ``mixture`` is None where the evidence does not separate, and ``reason`` is why."""

    scores: Float64
    auc: float
    mixture: Mixture | None
    reason: str


def _judge(case: EvidenceColumns, modality_trusts: ModalityTrusts, config: TrustConfig) -> Judgement:
    """Compare actual features with features re-paired anywhere."""
    count = len(case.rows)
    if count < config.min_items:
        reason = f"only {count} items have both a feature and an anchor, fewer than min_items = {config.min_items}"
        return Judgement(scores=np.full(count, np.nan), auc=float("nan"), mixture=None, reason=reason)
    return _compare(case, case.anywhere(config.null_pairs), modality_trusts, config, "bootstrap")


def _compare(
    case: EvidenceColumns, pairs: Pairings, modality_trusts: ModalityTrusts, config: TrustConfig, *name: str
) -> Judgement:
    """Compare the actual pairs with the wrong ``pairs``; ``name`` names the bootstrap's draws."""
    scores, null = case.contrast(pairs, modality_trusts)
    auc = separation(scores, null)
    reason, mixture = why_not(len(scores), len(null), auc, config), None
    if reason is None:
        mixture = fit_mixture(scores, null, resamples=config.resamples, rng=case.rng(*name))
        kinds = " and ".join(["behaviour", *modality_trusts])
        reason = f"actual features fit better than re-paired ones by {kinds} (AUC {auc:.3f}, {len(scores):,} items)"
    return Judgement(scores=scores, auc=auc, mixture=mixture, reason=reason)


def why_not(count: int, null_count: int, auc: float, config: TrustConfig) -> str | None:
    """Return why this AUC of ``count`` actual against ``null_count`` re-paired scores is too low, None where it is high enough."""
    error = float(np.sqrt((1 / max(1, count) + 1 / max(1, null_count)) / 12))
    if auc - 3 * error >= config.min_separation:
        return None
    return (
        f"actual features fit no better than re-paired ones: AUC {auc:.3f} less three standard errors of {error:.3f} is below "
        f"min_separation = {config.min_separation}"
    )


def _correlated_errors(alone: Judgement, joint: Judgement) -> bool:
    """Return whether behaviour finds far more mismatches than behaviour and the other modalities together.

    Then whole rows were swapped: the features of a row fit each other, so they hide each other's errors.
    """
    return alone.mixture is not None and joint.mixture is not None and alone.mixture.low > joint.mixture.high


def _trust_by_behaviour(case: EvidenceColumns, alone: Judgement) -> Float64:
    """Return the trust in a modality by behaviour alone: [I], NaN where it is unknown."""
    trust = np.full(len(case.projection.alignment), np.nan)
    if alone.mixture is not None:
        trust[case.rows] = alone.mixture.probability(alone.scores)
    return trust


def _among_alike(
    case: EvidenceColumns, modality_trusts: ModalityTrusts, category: Int32 | None, config: TrustConfig
) -> dict[str, Mixture | None]:
    """Return the mixture for features re-paired among similar items, by kind; None where the evidence does not separate those."""
    mixtures = {}
    for kind, pairs in case.alike(config.alike_groups, category, config.null_pairs // 2).items():
        if len(np.unique(pairs[1])) >= config.min_items:
            judgement = _compare(case, pairs, modality_trusts, config, "alike", kind)
            mixtures[kind] = judgement.mixture if judgement.auc >= config.min_alike_separation else None
    return mixtures


def _identified(
    case: EvidenceColumns, alone: Judgement, judgement: Judgement, mixture: Mixture, alike: Mapping[str, Mixture | None]
) -> Trust:
    # The interval also holds the rate by behaviour alone, because modalities with correlated errors hide some mismatches.
    by_behaviour = mixture.rate if alone.mixture is None else alone.mixture.rate
    low_unlike, high_unlike = min(mixture.low, by_behaviour), max(mixture.high, by_behaviour)
    low, high, reason = low_unlike, high_unlike, judgement.reason
    for kind, among in alike.items():
        if among is None:
            reason += f". Swaps between very similar items cannot be detected ({kind})"
            continue
        low, high = min(low, among.low), max(high, among.high)
        reason += f". With swaps among {kind}, at most {100 * max(among.high, high_unlike):.0f} % are mismatched"
    return Trust(
        modality=case.modality,
        probability=case.spread(mixture.probability(judgement.scores)),
        probability_upper=case.spread(mixture.probability_upper(judgement.scores)),
        behaviour=case.spread(alone.scores),
        cross_modal=case.spread(np.nan if judgement is alone else judgement.scores - alone.scores),
        mismatch_rate=mixture.rate,
        low=low,
        high=high,
        low_unlike=low_unlike,
        high_unlike=high_unlike,
        identifiable=True,
        separation=judgement.auc,
        reason=reason,
    )


def _unidentifiable(case: EvidenceColumns, alone: Judgement) -> Trust:
    nothing = case.spread(np.nan)
    undecided = "other modalities disagree with this one, and behaviour does not show which of them is wrong"
    return Trust(
        modality=case.modality,
        probability=nothing,
        probability_upper=nothing,
        behaviour=case.spread(alone.scores),
        cross_modal=nothing,
        mismatch_rate=None,
        low=None,
        high=None,
        low_unlike=None,
        high_unlike=None,
        identifiable=False,
        separation=alone.auc,
        reason=alone.reason if alone.mixture is None else undecided,
    )


def _blame(
    cases: Mapping[str, EvidenceColumns], alone: Mapping[str, Judgement], correlated: Set[str], config: TrustConfig
) -> Blame | None:
    """Return the joint posterior of the modalities whose errors are not correlated, by behaviour and by every pair that separates."""
    behaviour = {m: np.full(len(case.projection.alignment), np.nan) for m, case in cases.items()}
    for m, case in cases.items():
        mixture = alone[m].mixture
        if mixture is not None:
            behaviour[m][case.rows] = mixture.log_ratio(alone[m].scores)
    agreement: dict[tuple[str, str], Float64] = {}
    for m, case in cases.items():
        for name, partner in case.partners.items():
            scores, null = (x.astype(np.float64) for x in (partner.between.alignment, partner.between.null_alignment))
            both = ~np.isnan(scores)
            if not partner.projecting or correlated & {m, name}:
                continue
            if why_not(int(both.sum()), len(null), separation(scores[both], null), config) is not None:
                continue
            mixture = fit_mixture(scores[both], null, resamples=config.resamples, rng=case.rng("agreement", name))
            agreement[m, name] = np.full(len(scores), np.nan)
            agreement[m, name][both] = mixture.log_ratio(scores[both])
    return assign_blame(behaviour, agreement)


def _with_blame(trust: Trust, blame: Blame) -> Trust:
    """Return the trust with the joint posterior of all modalities, if its rate is lower, and for items without an anchor in any case.

    Matched features that say nothing look mismatched to either estimate, so the lower one is closer. The interval holds both.
    """
    m = trust.modality
    right, rate = blame.right[m], blame.rate[m]
    if trust.mismatch_rate is None or None in (trust.low, trust.high, trust.low_unlike, trust.high_unlike):
        return trust
    unknown = np.isnan(trust.probability)
    lower = rate < trust.mismatch_rate
    taken = ~np.isnan(right) & (unknown | lower)
    # How far the bound lies above the estimate is a matter of the evidence by behaviour, whichever estimate is taken.
    margin = np.where(unknown, 0.0, logit(trust.probability_upper) - logit(trust.probability))
    upper = 1 / (1 + np.exp(-(logit(right) + margin)))
    evidence = logit(right) - logit(1 - rate) - np.nan_to_num(trust.behaviour)
    return replace(
        trust,
        probability=np.where(taken, right, trust.probability).astype(np.float32),
        probability_upper=np.where(taken, np.maximum(upper, right), trust.probability_upper).astype(np.float32),
        cross_modal=np.where(taken, evidence, trust.cross_modal).astype(np.float32),
        mismatch_rate=min(rate, trust.mismatch_rate),
        **{name: min(getattr(trust, name), blame.low[m]) for name in ("low", "low_unlike")},
        **{name: max(getattr(trust, name), blame.high[m]) for name in ("high", "high_unlike")},
    )


def _bounded(trust: Trust, alone: Judgement, config: TrustConfig) -> Trust:
    """Return the trust with an interval that begins at 0, unless right features clearly fit their items by behaviour.

    Features that say nothing about behaviour look like mismatched ones. Where even right features fit only so so, their share is unknown,
    and the rate is bounded from above alone.
    """
    rate = trust.mismatch_rate
    if rate is None or trust.low is None or trust.low <= 0:
        return trust
    # The AUC of all features is that of the right ones, mixed with 1/2 for the mismatched.
    of_right = (alone.auc - rate / 2) / (1 - rate) if alone.mixture is not None and rate < 1 else 0.5
    if of_right >= config.min_claim_separation:
        return trust
    reason = f"{trust.reason}. Right features fit their items only loosely (AUC {of_right:.2f}), so perhaps none are mismatched"
    return replace(trust, low=0.0, low_unlike=0.0, reason=reason)
