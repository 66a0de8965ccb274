"""What inconsistent filtering does to Recall@20 when nothing but the filter changes: a warning, as a table and a picture.

python -m benchmarks.quality.editing_artefact --data DIR [--seeds 3] [--picture FILE.png] > benchmarks/results/editing_artefact.md

One LightGCN prior is trained on the log as it is and never again; only the edits that would have been made are handed to the filter.
"consistent" masks the logged pairs whatever was edited: Recall does not move. "edited pairs masked" masks what was learned instead.
"survivors judged" judges only held-out pairs whose user and item still have as many edited pairs as the log's sparsest: Recall rises
although nobody recommends better.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.shared.movielens import load_split, options_parser
from rectifier_core.base.pairs import subset
from rectifier_core.base.records import Interactions
from rectifier_core.evaluation.config import PriorConfig
from rectifier_core.evaluation.edge_prior import Prior, fit_prior
from rectifier_core.evaluation.edges import edit_edges
from rectifier_core.evaluation.metrics import per_user_ranking
from rectifier_core.evaluation.ranking import rank_items

EDITS = [("pruning", x) for x in (0.0, 0.1, 0.2, 0.3, 0.4)] + [("completion", x) for x in (0.0, 0.05, 0.1, 0.2, 0.3)]
FILTERS = ("consistent", "edited pairs masked", "survivors judged")


def recall(prior: Prior, known: Interactions, held_out: Interactions) -> float:
    """Mean Recall@20 of the prior's ranking over the users with a held-out pair."""
    users = np.unique(held_out.users).astype(np.int32)
    ranked = rank_items(torch.from_numpy(prior.users), torch.from_numpy(prior.items), users, known)
    return float(per_user_ranking(ranked, users, held_out).recall[20].mean())


def survivors(held_out: Interactions, known: Interactions, edited: Interactions) -> Interactions:
    """Held-out pairs whose user and item still have as many edited pairs as the log's sparsest."""
    passing = []
    for logged, left, wanted in (
        (known.users, edited.users, held_out.users),
        (known.items, edited.items, held_out.items),
    ):
        size = 1 + max(int(x.max(initial=0)) for x in (logged, left, wanted))
        before, after = (np.bincount(x, minlength=size) for x in (logged, left))
        least = int(before[before > 0].min(initial=len(known.users)))
        passing.append((after >= least)[wanted])
    return subset(held_out, passing[0] & passing[1])


def measured(data: Path, seeds: int) -> np.ndarray:
    """Recall@20 [seeds, edits, filters]."""
    split = load_split(data)
    found = np.zeros((seeds, len(EDITS), len(FILTERS)))
    for seed in range(seeds):
        prior = fit_prior(split.training, PriorConfig(), seed=seed)
        for at, (name, ratio) in enumerate(EDITS):
            edited = edit_edges(split.training, prior, **{name: ratio}).pairs
            found[seed, at] = [
                recall(prior, split.training, split.test),
                recall(prior, edited, split.test),
                recall(prior, split.training, survivors(split.test, split.training, edited)),
            ]
    return found


def draw(found: np.ndarray, path: Path) -> None:
    """Two panels, pruning and completion: Recall@20 against the ratio, one line a filter, spread over seeds as bars."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("pruning", "completion"), strict=True):
        rows = [at for at, edit in enumerate(EDITS) if edit[0] == name]
        ratios = [EDITS[at][1] for at in rows]
        for column, (label, colour, mark) in enumerate(
            zip(FILTERS, ("#0072B2", "#E69F00", "#D55E00"), "osv", strict=True)
        ):
            part = found[:, rows, column]
            axes.errorbar(
                ratios, part.mean(axis=0), part.std(axis=0, ddof=1), label=label, color=colour, marker=mark, capsize=2
            )
        axes.set_xlabel(f"{name}, share of the training pairs")
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("Recall@20 of one fixed model")
    figure.axes[0].legend(frameon=False)
    figure.suptitle("The model never changes: only whose lists are masked, and who is judged")
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> None:
    """Print the table, and draw the picture where it is asked for."""
    parser = options_parser(__doc__)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    found = measured(options.data, options.seeds)
    print(f"Command: `python -m benchmarks.quality.editing_artefact --data DIR --seeds {options.seeds}`\n")
    print("| edit | share | " + " | ".join(FILTERS) + " |\n|" + "---|" * (2 + len(FILTERS)))
    for at, (name, ratio) in enumerate(EDITS):
        cells = (f"{x.mean():.4f} ± {x.std(ddof=1):.4f}" for x in found[:, at].T)
        print(f"| {name} | {ratio:g} | {' | '.join(cells)} |")
    if options.picture is not None:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
