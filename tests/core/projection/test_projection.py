"""The projection finds planted mismatches, claims nothing where there is nothing, and equals the algebra it stands for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rectifier_core.base.arrays import Float32
from rectifier_core.base.numerics import separation, silent, unit_rows
from rectifier_core.base.records import Projection
from rectifier_core.base.seeding import torch_generator
from rectifier_core.projection import ridge_fit
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import item_folds
from rectifier_core.projection.problem import Problem
from rectifier_core.projection.projection import fit_projection
from rectifier_core.projection.row_passes import HeldRows
from tests.support.core_samples import Planted, anchors_of, normals, planted_features, random_units

SELECTING = ProjectionConfig(keep_ratio=0.75, ridge_grid=(0.1, 1.0, 10.0))
MINIBATCH = ProjectionConfig(solver="minibatch", keep_ratio=0.75, epochs=30, batch_size=128)


def fit(world: Planted, config: ProjectionConfig, features: Float32 | None = None, seed: int = 0) -> Projection:
    given = world.features if features is None else features
    return fit_projection("image", given, np.ones(len(given), np.bool_), world.anchors, config, seed=seed)


def detection(world: Planted, found: Projection) -> float:
    return separation(found.alignment[~world.wrong], found.alignment[world.wrong])


@pytest.fixture(scope="module")
def world() -> Planted:
    return planted_features(items=400, width=40, noise=1.0, share=0.2, seed=0)


@pytest.mark.parametrize("keep_ratio", [1.0, 0.75])
@pytest.mark.parametrize("seed", [0, 1])
def test_swapped_features_are_found(keep_ratio: float, seed: int) -> None:
    world = planted_features(items=400, width=40, noise=1.0, share=0.2, seed=seed)
    found = fit(world, replace(SELECTING, keep_ratio=keep_ratio))
    assert detection(world, found) > 0.98
    assert found.kept.sum() == round(400 * keep_ratio)
    if keep_ratio < 1:
        assert (~world.wrong)[found.kept].mean() > 0.97, "selection keeps what is matched (the base rate is 0.8)"
    assert abs(separation(found.alignment[world.wrong], found.null_alignment) - 0.5) < 0.12


def test_a_map_fitted_in_sample_hides_what_one_out_of_fold_shows() -> None:
    world = planted_features(items=150, width=300, noise=3.0, share=0.2, seed=0)
    out, inside = (
        detection(world, fit(world, config)) for config in (SELECTING, replace(MINIBATCH, keep_ratio=1.0, epochs=60))
    )
    assert out > 0.95 > inside + 0.1


@pytest.mark.parametrize("keep_ratio", [1.0, 0.75])
@pytest.mark.parametrize("width", [20, 200])
def test_features_dealt_at_random_align_no_better_than_re_paired_ones(keep_ratio: float, width: int) -> None:
    """Selection must not leak: what picks a fold's fitting pairs may not have seen that fold. The bound is 3 standard errors."""
    found = []
    for seed in range(4):
        world = planted_features(items=300, width=width, noise=0.5, share=0.0, seed=seed)
        shuffled = world.features[np.random.default_rng(seed + 50).permutation(300)]
        projection = fit(world, replace(SELECTING, keep_ratio=keep_ratio), shuffled, seed)
        found.append(separation(projection.alignment, projection.null_alignment))
    assert abs(np.mean(found) - 0.5) < 3 / np.sqrt(12 * 300 * 4) + 0.005


def test_one_round_with_nothing_dropped_is_ridge_regression(world: Planted) -> None:
    found = fit(world, replace(SELECTING, keep_ratio=1.0, rounds=1))
    x, y = unit_rows(world.features).astype(np.float64), world.anchors.items.astype(np.float64)
    centred = x - x.mean(axis=0)
    assert found.ridge in SELECTING.ridge_grid
    penalty = found.ridge * (centred**2).sum() / x.shape[1]
    wanted = np.linalg.solve(centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean(axis=0)))
    assert np.allclose(found.weight, wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.allclose(found.feature_mean, x.mean(axis=0), atol=1e-6)
    assert np.allclose(found.target, unit_rows((y - y.mean(axis=0)).astype(np.float32)), atol=1e-5)
    assert found.kept.all()
    in_sample = np.einsum("ij,ij->i", unit_rows((centred @ wanted).astype(np.float32)), found.target)
    assert found.alignment.mean() < in_sample.mean() - 0.01, "an item's score comes from a map that never saw the item"


@pytest.mark.parametrize("noise", [0.1, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("width", [20, 300])
def test_the_strength_is_the_best_of_the_whole_grid(noise: float, width: int) -> None:
    world, whole = planted_features(items=250, width=width, noise=noise, share=0.1, seed=3), ProjectionConfig()
    reached = {x: fit(world, replace(whole, ridge_grid=(x,))).alignment.mean() for x in whole.ridge_grid}
    found = fit(world, replace(whole, ridge_grid=tuple(reversed(whole.ridge_grid))))
    assert found.ridge == max(reached, key=lambda x: reached[x])
    assert found.alignment.mean() == max(reached.values())


@pytest.mark.parametrize("config", [SELECTING, replace(MINIBATCH, epochs=3)], ids=["crossfit", "minibatch"])
def test_a_memory_map_serves_as_well(world: Planted, config: ProjectionConfig, tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", world.features)
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert fit(world, config, mapped).alignment.tobytes() == fit(world, config).alignment.tobytes()


@pytest.mark.parametrize("config", [SELECTING, replace(MINIBATCH, epochs=3)], ids=["crossfit", "minibatch"])
def test_blocks_change_nothing_but_rounding(world: Planted, config: ProjectionConfig) -> None:
    whole, blocked = fit(world, config), fit(world, replace(config, block_rows=37))
    assert np.allclose(whole.alignment, blocked.alignment, atol=1e-4) and np.array_equal(whole.kept, blocked.kept)


@pytest.mark.parametrize("config", [SELECTING, replace(MINIBATCH, epochs=3)], ids=["crossfit", "minibatch"])
def test_the_same_seed_gives_the_same_bytes(world: Planted, config: ProjectionConfig) -> None:
    first, again, other = (fit(world, config, seed=seed) for seed in (1, 1, 2))
    for field in (
        "weight",
        "feature_mean",
        "projected",
        "target",
        "alignment",
        "length",
        "fold",
        "null_alignment",
        "kept",
    ):
        assert getattr(first, field).tobytes() == getattr(again, field).tobytes()
    assert first.alignment.tobytes() != other.alignment.tobytes()


@pytest.mark.parametrize("config", [SELECTING, replace(MINIBATCH, epochs=3)], ids=["crossfit", "minibatch"])
def test_items_that_lack_a_side(world: Planted, config: ProjectionConfig) -> None:
    """0-9 have no anchor, 10-19 no feature, 20-24 neither: placed where they can be, scored nowhere, and no part of the fit."""
    trained, present = np.ones(400, np.bool_), np.ones(400, np.bool_)
    trained[[*range(10), *range(20, 25)]] = False
    present[10:25] = False
    anchors = anchors_of(world.anchors.items, trained)
    features = np.where(present[:, None], world.features, np.float32(0))
    found = fit_projection("image", features, present, anchors, config, seed=0)
    assert np.isnan(found.alignment[:25]).all() and not np.isnan(found.alignment[25:]).any()
    assert not found.kept[:25].any() and found.kept[25:].sum() == round(375 * 0.75)
    assert not found.projected[10:25].any() and not found.target[[*range(10), *range(20, 25)]].any()
    centred: Float32 = unit_rows(features[:10]) - found.feature_mean
    expected = unit_rows(centred @ found.weight)
    assert np.allclose(found.projected[:10], expected, atol=1e-5)
    assert np.allclose(np.linalg.norm(found.target[10:20], axis=1), 1, atol=1e-5)
    rng = np.random.default_rng(0)
    others, elsewhere = features.copy(), anchors.items.copy()
    others[:10], elsewhere[10:20] = 9 * normals(rng, 10, 40), random_units(rng, 10, 12)
    again = fit_projection("image", others, present, anchors_of(elsewhere, trained), config, seed=0)
    assert np.array_equal(again.alignment[25:], found.alignment[25:]) and np.array_equal(again.weight, found.weight)


@pytest.mark.parametrize("count", [0, 1, 9])
def test_too_few_pairs_yield_nothing(count: int) -> None:
    rng = np.random.default_rng(0)
    present = np.arange(30) < count
    features = np.where(present[:, None], normals(rng, 30, 5), np.float32(0))
    found = fit_projection("image", features, present, anchors_of(random_units(rng, 30, 4)), SELECTING, seed=0)
    assert np.isnan(found.alignment).all() and len(found.null_alignment) == 0 and found.ridge is None
    assert not found.projected.any() and not found.target.any() and not found.kept.any()
    assert found.weight.shape == (5, 4)


def test_null_scores_are_of_pairs_that_share_a_fold_and_are_not_their_own(world: Planted) -> None:
    """Every null score is that of one wrong pair inside a fold, so no map saw either half; none is a pair's own."""
    found = fit(world, SELECTING)
    fits = found.projected @ found.target.T
    allowed = np.equal.outer(found.fold, found.fold) & ~np.eye(len(fits), dtype=np.bool_)
    nearest = np.sort(fits[allowed])
    at = np.clip(np.searchsorted(nearest, found.null_alignment), 1, len(nearest) - 1)
    assert (
        np.minimum(np.abs(nearest[at] - found.null_alignment), np.abs(nearest[at - 1] - found.null_alignment)).max()
        < 1e-5
    )
    assert len(found.null_alignment) % 400 == 0


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_an_automatic_ratio_settles_where_the_mismatch_rate_asks(share: float) -> None:
    for seed in range(2):
        world = planted_features(items=600, width=40, noise=1.0, share=share, seed=seed)
        found = fit(world, replace(SELECTING, keep_ratio="auto"), seed=seed)
        assert found.kept.mean() == pytest.approx(0.95 - world.wrong.mean(), abs=0.06)
        fixed = fit(world, replace(SELECTING, keep_ratio=float(found.kept.mean())), seed=seed)
        assert detection(world, found) == pytest.approx(
            detection(world, fixed) if share else float("nan"), abs=0.01, nan_ok=True
        )


def minibatch_written_out(world: Planted, config: ProjectionConfig) -> Float32:
    """The paper's solver with whole-set batches: cosine loss from its definition, the smallest losses only."""
    x, y = (torch.from_numpy(rows).double() for rows in (unit_rows(world.features), world.anchors.items))
    start = torch.randn(
        x.shape[1], y.shape[1], generator=torch_generator(0, "projection", "image", "weight")
    ) / np.sqrt(x.shape[1])
    weight = start.double().requires_grad_()
    optimiser = torch.optim.Adam([weight], lr=config.learning_rate, weight_decay=config.weight_decay)
    assert config.keep_ratio != "auto"
    for epoch in range(config.epochs):
        share = 1 - (1 - config.keep_ratio) * min(1, epoch / config.ramp)
        image = x @ weight
        loss = 1 - (image * y).sum(1) / image.norm(dim=1)
        optimiser.zero_grad()
        loss.sort().values[: round(share * len(x))].mean().backward()
        optimiser.step()
    return np.asarray(weight.detach().numpy(), dtype=np.float32)


def test_the_minibatch_solver_is_the_papers_recipe(world: Planted) -> None:
    config = replace(MINIBATCH, batch_size=1000, epochs=12, ramp=6, learning_rate=0.02, weight_decay=0.01)
    found = fit(world, config)
    assert np.allclose(found.weight, minibatch_written_out(world, config), atol=2e-4)
    assert not found.feature_mean.any() and found.ridge is None


def test_the_minibatch_loss_falls_and_finds_mismatches(world: Planted) -> None:
    said: list[str] = []
    whole = np.ones(400, np.bool_)
    found = fit_projection(
        "image", world.features, whole, world.anchors, MINIBATCH, seed=0, progress=lambda what, _, __: said.append(what)
    )
    losses = [float(line.rsplit(" ", 1)[1]) for line in said]
    assert len(losses) == MINIBATCH.epochs and losses[-1] < losses[0] - 0.2
    assert detection(world, found) > 0.8 and found.kept.sum() == 300
    assert (~world.wrong)[found.kept].mean() > 0.85


def test_the_ramp_begins_with_every_pair(world: Planted) -> None:
    brief = replace(MINIBATCH, epochs=2, ramp=1, keep_ratio=0.3)
    for epochs, same in ((1, True), (2, False)):
        some, every = (fit(world, replace(brief, epochs=epochs, keep_ratio=keep)).weight for keep in (0.3, 1.0))
        assert np.array_equal(some, every) == same


@pytest.mark.parametrize("keep_ratio", [1.0, 0.8])
def test_fewer_pairs_than_columns_are_solved_in_their_span_with_the_same_result(keep_ratio: float) -> None:
    rng = np.random.default_rng(4)
    anchors = unit_rows(rng.standard_normal((60, 8)).astype(np.float32))
    features = (anchors @ rng.standard_normal((8, 150)) + rng.standard_normal((60, 150))).astype(np.float32)
    config = ProjectionConfig(keep_ratio=keep_ratio)
    trained = np.arange(60) % 6 != 2
    found_anchors = replace(anchors_of(anchors), trained=trained)
    pairs = np.flatnonzero(trained)
    folds = item_folds(60, config.folds, 0)[pairs]
    passes = HeldRows(features, config.block_rows)
    problem = Problem("image", features, pairs, folds, found_anchors, config, keep_ratio, 0, silent, passes)
    primal, dual = ridge_fit._fit(problem, anchors[pairs], 150), ridge_fit.fit_ridge(problem)
    assert dual.ridge == primal.ridge
    assert (dual.kept == primal.kept).all()
    for name in ("weight", "feature_mean", "target_mean", "projected"):
        np.testing.assert_allclose(getattr(dual, name), getattr(primal, name), rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(dual.maps.weights, primal.maps.weights, rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(dual.maps.feature_means, primal.maps.feature_means, atol=1e-6)
