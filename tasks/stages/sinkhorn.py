"""Stage: sinkhorn, the affinity balanced to a plan."""

from __future__ import annotations

import numpy as np

from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Affinity, BalanceOutcome
from rectifier_core.sinkhorn.config import SinkhornConfig
from rectifier_core.sinkhorn.sinkhorn import balance
from tasks.stages.previous_run import PreviousRun, inputs_of
from tasks.store.saved_records import load_record, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def sinkhorn_stage(
    modality: str,
    affinity: Ref,
    config: SinkhornConfig,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
    progress: Progress = silent,
) -> Ref:
    """Balance one modality's affinity in this process, on a cluster as well: see ``docs/decisions/sinkhorn.md``.

    With ``previous``, balancing starts from that run's potential, if that run converged. Where no balance exists the potential drifts
    without end, and starting from it takes longer than starting from zero.
    """
    name = f"sinkhorn/{modality}"

    def build(writer: StageWriter) -> None:
        start = None
        if previous is not None and previous.stages[name].meta["outcome"] == BalanceOutcome.CONVERGED.name:
            start = previous.mapped(modality).rows(previous.stages[name].array("potential"), np.nan)
        save_record(writer, balance(load_record(affinity, Affinity), config, potential=start, progress=progress))

    return store.once(name, (affinity, config, *inputs_of(previous, name)), build)
