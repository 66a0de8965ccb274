"""What ``benchmarks.speed.device`` computes both ways."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.shared.synthetic_log import clustered_log
from benchmarks.speed.device_bench import Bench, failed, relative
from rectifier_core.affinity.affinity import find_affinity
from rectifier_core.affinity.config import AffinityConfig
from rectifier_core.affinity.device_search import DeviceRows
from rectifier_core.affinity.index import search_rows
from rectifier_core.anchors.anchors import train_anchors
from rectifier_core.anchors.config import AnchorsConfig
from rectifier_core.anchors.held_out_recall import HeldOutRecall
from rectifier_core.anchors.interaction_sampling import NegativeSampler, hold_out
from rectifier_core.anchors.lightgcn import LightGCNTraining
from rectifier_core.anchors.propagation import InteractionGraph
from rectifier_core.anchors.spectral import spectral_start
from rectifier_core.base.arrays import Float32, Int32
from rectifier_core.base.numerics import row_blocks, unit_rows
from rectifier_core.base.records import Anchors, Interactions
from rectifier_core.base.seeding import generator
from rectifier_core.evaluation.backbones.config import TrainingConfig
from rectifier_core.evaluation.backbones.protocol import TrainingSet
from rectifier_core.evaluation.backbones.registry import BACKBONES, build
from rectifier_core.evaluation.training import History, fit
from rectifier_core.projection.config import ProjectionConfig
from rectifier_core.projection.crossfit import NormalEquations
from rectifier_core.projection.projection import fit_projection
from tests.support.core_samples import places_of

WIDTH, COUNT, SAMPLE, LAYERS = 64, 20, 2000, 3
Batch = tuple[Int32, Int32, Int32]


def clustered(items: int) -> Float32:
    """Unit rows [I, D] of an intrinsic dimension of 24, a cluster for every 250, as in ``benchmarks.speed.top_k``."""
    rng, clusters = generator(0, "clustered"), max(20, items // 250)
    spread = rng.standard_normal((24, WIDTH), dtype=np.float32) / np.float32(np.sqrt(24))
    centre, kind = rng.standard_normal((clusters, 24), dtype=np.float32), rng.integers(clusters, size=items)
    rows = np.empty((items, WIDTH), np.float32)
    for block in row_blocks(items, 2**16):
        latent = centre[kind[block]] + np.float32(0.7) * rng.standard_normal(
            (block.stop - block.start, 24), dtype=np.float32
        )
        rows[block] = latent @ spread + np.float32(0.2) * rng.standard_normal(
            (block.stop - block.start, WIDTH), dtype=np.float32
        )
    return unit_rows(rows)


def search_with_ties(bench: Bench) -> None:
    """A third of the catalog is one placeholder, so that a query's last place is a tie of thousands."""
    items = bench.size(20_000)
    rows = clustered(items)
    features = rows.copy()
    features[generator(0, "placeholder").random(items) < 1 / 3] = rows[0]
    projection, config = places_of(features, rows), AffinityConfig(index="flat")
    here = find_affinity(projection, config, seed=0, threads=bench.threads)
    there = find_affinity(projection, config, seed=0, threads=bench.threads, device=bench.device)
    apart = float(np.abs(here.scores - there.scores).max())
    bench.check(f"search, {items:,} items with a placeholder: scores apart by at most", apart, "<=", 1e-5)


def search_large(bench: Bench) -> None:
    """A million queries against a million features, exact; the CPU's exact search answers a sample."""
    items = bench.size(1_000_000)
    rows = clustered(items)
    projection, config = places_of(rows, rows), AffinityConfig(num_neighbours=COUNT)
    small = places_of(rows[:20_000], rows[:20_000])
    find_affinity(small, AffinityConfig(index="ivf"), seed=0)
    find_affinity(small, config, seed=0, device=bench.device)
    search = partial(find_affinity, projection, config, seed=0, threads=bench.threads)
    found, seconds, peak = bench.timed(partial(search, device=bench.device))
    held = DeviceRows(rows, np.arange(items), bench.device)
    _, alone, _ = bench.timed(
        lambda: [held.candidates(rows[block], COUNT + 4) for block in row_blocks(items, config.block_rows)]
    )
    rate = 2e-12 * items**2 * WIDTH / alone
    bench.note(
        f"search, {items:,} x {items:,}: seconds on the device alone, scoring candidates again left out",
        f"{alone:.3g}, {rate:.3g} TFLOP/s",
    )
    sample = np.sort(generator(1, "asked").choice(items, min(SAMPLE, items), replace=False))
    start = time.perf_counter()
    truth, scores = search_rows(rows, np.arange(items), rows[sample], COUNT, threads=bench.threads)
    exact = (time.perf_counter() - start) * items / len(sample)
    there = found.neighbours[sample]
    recall = float(np.mean([len(np.intersect1d(a, b)) / COUNT for a, b in zip(truth, there, strict=True)]))
    bench.check(
        f"search, {items:,} x {items:,}: recall against the CPU's exact search, {len(sample):,} queries",
        recall,
        ">=",
        0.9999,
    )
    bench.check("the same: equal neighbours, place by place", float((truth == there).mean()), ">=", 0.999)
    bench.check(
        "the same: cosines apart by at most",
        float(np.abs(scores - found.scores[sample] * config.temperature).max()),
        "<=",
        1e-5,
    )
    bench.time(
        f"search, {items:,} x {items:,}, against exact", exact, seconds, peak, f" (from {len(sample):,} queries)"
    )
    lists, here, _ = bench.timed(search)
    bench.time(f"the same, against {lists.index} at recall {lists.recall:.4f}", here, seconds, peak)


def anchors_small(bench: Bench) -> None:
    """Anchors to the end both ways: the first losses, and the best held-out recall."""
    log = clustered_log(bench.size(20_000), bench.size(10_000), bench.size(200_000), clusters=50)
    train = partial(train_anchors, log, AnchorsConfig(epochs=15), seed=0)
    here, cpu, _ = bench.timed(train)
    there, cuda, peak = bench.timed(partial(train, device=bench.device))
    bench.check(
        f"anchors, {len(log.users):,} pairs: losses of the first 3 epochs apart by at most",
        relative(there.losses[:3], here.losses[:3]),
        "<=",
        1e-3,
    )
    bench.check(
        "the same: best held-out recall apart by", abs(float(there.recalls.max() - here.recalls.max())), "<=", 0.002
    )
    cosine = np.einsum("ij,ij->i", here.items, there.items)[here.trained]
    bench.note(
        "the same: cosine of an item's two anchors, median and lowest", f"{np.median(cosine):.4f}, {cosine.min():.4f}"
    )
    bench.note("the same: epochs", f"CPU {len(here.losses)}, device {len(there.losses)}")
    bench.time(f"anchors to the end, {len(log.users):,} pairs, start and reliability on the CPU", cpu, cuda, peak)


def anchors_large(bench: Bench) -> None:
    """Ten million pairs of a million users and a million items: an epoch of about eight steps."""
    log = clustered_log(bench.size(1_000_000), bench.size(1_000_000), bench.size(10_000_000))
    training, held_out = hold_out(log, 0.1, generator(0, "hold-out"))
    graph, sampler = InteractionGraph.of(training), NegativeSampler(training)
    judge = HeldOutRecall(training, held_out, generator(0, "judge"))
    start, seconds, _ = bench.timed(lambda: spectral_start(graph, WIDTH, generator(0, "start")))
    bench.note(
        f"anchors, {len(log.users):,} pairs: seconds of the spectral start, on the CPU both ways", f"{seconds:.3g}"
    )
    size = -(-len(training.users) // 8)

    def draw() -> Iterator[Batch]:
        rng = generator(0, "epoch")
        order = rng.permutation(np.arange(len(training.users), dtype=np.int32))
        for first in range(0, len(order), size):
            picked = order[first : first + size]
            yield training.users[picked], training.items[picked], sampler(training.users[picked], rng)

    batches, drawing, _ = bench.timed(lambda: list(draw()))
    bench.note("the same: seconds of drawing an epoch's batches, on the CPU both ways", f"{drawing:.3g}")

    def made(device: str) -> LightGCNTraining:
        return LightGCNTraining(graph.to(device), start, LAYERS, learning_rate=0.02, weight_decay=1e-4)

    model = made(bench.device)
    first = [float(model.step(*batch)) for batch in batches[:3]]
    rows = model.ego
    _, there, peak = bench.timed(lambda: [model.step(*batch) for batch in batches])
    _, judging, _ = bench.timed(lambda: judge(model.final()))
    ours = made("cpu")
    losses, here, _ = bench.timed(lambda: [float(ours.step(*batch)) for batch in batches[:3]])
    judged, slow, _ = bench.timed(lambda: judge(ours.final()))
    bench.check("the same: losses of the first 3 steps apart by at most", relative(first, losses), "<=", 1e-4)
    bench.check(
        "the same: share of entries apart by over 1e-3 after them",
        float(np.mean(np.abs(rows - ours.ego) > 1e-3)),
        "<=",
        0.01,
    )
    scored = judge(ours.final().to(bench.device))
    bench.check("the same: recall of the same rows, judged both ways, apart by", abs(scored - judged), "<=", 1e-3)
    whole = here * len(batches) / 3
    bench.time(
        f"LightGCN's steps of an epoch, {len(batches)} of {size:,} pairs, {graph.num_nodes:,} nodes",
        whole,
        there,
        peak,
        " (from 3 steps)",
    )
    bench.time(
        "the same, with drawing the batches and judging the epoch",
        whole + drawing + slow,
        there + drawing + judging,
        peak,
    )


def gram(bench: Bench) -> None:
    """Wide features onto anchors: the sums alone, and the whole projection."""
    items, width = bench.size(60_000), 1280
    rng = generator(0, "gram")
    places = clustered(items)
    features = places @ rng.standard_normal((WIDTH, width), dtype=np.float32)
    features += np.float32(3) * rng.standard_normal((items, width), dtype=np.float32)
    rows, folds = unit_rows(features), (rng.permutation(items) % 5).astype(np.int32)

    def added(device: str, count: int) -> NormalEquations:
        sums = NormalEquations(num_folds=5, origin=rows[:1000].mean(axis=0), target_width=WIDTH, device=device)
        for block in row_blocks(count, 8192):
            sums.add(rows[block], places[block], folds[block])
        return sums

    added(bench.device, min(items, 8192))
    ours, here, _ = bench.timed(lambda: added("cpu", items))
    theirs, there, peak = bench.timed(lambda: added(bench.device, items))
    solved = (ours, theirs)
    weights = [sums.solve(1.0, 0)[0] for sums in solved]
    apart = float(np.linalg.norm(weights[1] - weights[0]) / np.linalg.norm(weights[0]))
    bench.check(f"ridge map of {items:,} rows, {width} wide: apart by, as a share of its length", apart, "<=", 1e-4)
    bench.time(f"Gram sums of {items:,} rows, {width} wide, 5 folds", here, there, peak)
    known = np.ones(items, np.bool_)
    nothing = np.zeros(0)
    anchors = Anchors(
        items=places, ego=places, trained=known, reliability=known.astype(np.float32), losses=nothing, recalls=nothing
    )
    fitting = partial(
        fit_projection, "image", features, known, anchors, ProjectionConfig(ridge_grid=(1.0, 10.0)), seed=0
    )
    one, here, _ = bench.timed(fitting)
    other, there, peak = bench.timed(partial(fitting, device=bench.device))
    bench.check(
        "projection: alignments apart by at most", float(np.abs(one.alignment - other.alignment).max()), "<=", 1e-4
    )
    bench.time(f"projection of {items:,} rows, {width} wide", here, there, peak)


def backbones(bench: Bench) -> None:
    """Two epochs of each recommender from the same weights, on the same batches."""
    log = clustered_log(2000, 1000, 15_000, clusters=10)
    training, validation = hold_out(log, 0.1, generator(0, "hold-out"))
    rng = generator(0, "features")
    features = {
        m: rng.standard_normal((log.num_items, width), dtype=np.float32) for m, width in (("image", 96), ("text", 64))
    }
    data = TrainingSet.plain(training, features, {m: np.ones(log.num_items, np.bool_) for m in features})
    for device in ("cpu", bench.device):
        fit(build("vbpr", data, seed=0).to(device), data, validation, TrainingConfig(epochs=1), seed=0)
    for name in BACKBONES:
        try:
            backbone(bench, name, data, validation)
        except Exception:
            failed(bench, name)


def backbone(bench: Bench, name: str, data: TrainingSet, validation: Interactions) -> None:
    """Two epochs of one recommender both ways."""
    schedule = TrainingConfig(learning_rate=BACKBONES[name].training_config.learning_rate, batch_size=1024, epochs=2)

    def trained(device: str) -> tuple[History, float, str]:
        model = build(name, data, seed=0).to(device)
        return bench.timed(lambda: fit(model, data, validation, schedule, seed=0))

    (ours, here, _), (theirs, there, peak) = trained("cpu"), trained(bench.device)
    bench.check(
        f"{name}: losses of 2 epochs apart by at most, as a share", relative(theirs.losses, ours.losses), "<=", 1e-3
    )
    bench.check(
        f"{name}: validation recall apart by at most",
        float(np.abs(np.subtract(theirs.scores, ours.scores)).max()),
        "<=",
        0.005,
    )
    bench.time(f"{name}: 2 epochs of {len(data.positives.users):,} pairs", here, there, peak)


PARTS: dict[str, Callable[[Bench], None]] = {
    "ties": search_with_ties,
    "search": search_large,
    "epoch": anchors_large,
    "gram": gram,
    "anchors": anchors_small,
    "backbones": backbones,
}
