"""Stage: projection, one modality mapped into anchor space; and cross-modal, one modality mapped into another's space."""

from __future__ import annotations

from rectifier_core.base.devices import CPU
from rectifier_core.base.numerics import Progress, silent
from rectifier_core.base.records import Anchors, Projection
from rectifier_core.incremental.projection import update_projection
from rectifier_core.projection.config import CrossModalConfig, ProjectionConfig
from rectifier_core.projection.cross_modal import Axes, place_by_features, principal_axes
from rectifier_core.projection.projection import fit_projection
from tasks.shards.projection import ShardedRows
from tasks.stages.copies import informative_items
from tasks.stages.previous_run import PreviousRun, inputs_of
from tasks.store.saved_records import load_part, load_record, save_part, save_record
from tasks.store.store import Ref, StageStore, StageWriter


def projection_stage(
    modality: str,
    features: Ref,
    copies: Ref,
    targets: Ref,
    config: ProjectionConfig,
    seed: int,
    store: StageStore,
    *,
    onto: str | None = None,
    previous: PreviousRun | None = None,
    device: str = CPU,
    progress: Progress = silent,
) -> Ref:
    """Map one modality onto ``targets``: the anchors, or the output of ``cross_modal_target_stage`` for the modality ``onto``.

    With ``previous``, the maps of that run are applied and nothing is fitted.
    """
    name = f"projection/{modality}" if onto is None else f"cross_modal/{modality}-{onto}"

    def build(writer: StageWriter) -> None:
        rows, known = features.array(f"features-{modality}"), informative_items(modality, features, copies)
        target = load_record(targets, Anchors)
        if previous is not None:
            old, mapped = load_record(previous.stages[name], Projection), previous.mapped(modality)
            save_record(writer, update_projection(old, mapped, rows, known, target, config, seed=seed))
            return
        with store.runner.open_work(name) as work:
            passes = ShardedRows(
                features=features,
                name=f"features-{modality}",
                work=work,
                device=CPU if store.runner.remote else device,
                block_rows=config.block_rows,
                shard_rows=store.runner.shard_rows,
            )
            save_record(
                writer,
                fit_projection(modality, rows, known, target, config, seed=seed, passes=passes, progress=progress),
            )

    return store.once(name, (features, copies, targets, config, seed, *inputs_of(previous, name)), build)


def cross_modal_target_stage(
    modality: str,
    features: Ref,
    copies: Ref,
    config: CrossModalConfig,
    seed: int,
    store: StageStore,
    *,
    previous: PreviousRun | None = None,
) -> Ref:
    """Compute the principal coordinates of one modality, for other modalities to be mapped onto.

    With ``previous``, the axes of that run are used again.
    """
    name = f"cross_modal_target/{modality}"

    def build(writer: StageWriter) -> None:
        rows, known = features.array(f"features-{modality}"), informative_items(modality, features, copies)
        if previous is None:
            axes, unchanged = principal_axes(modality, rows, known, config, seed=seed), None
        else:
            axes, mapped = load_part(previous.stages[name], "axes", Axes), previous.mapped(modality)
            unchanged = mapped.rows(previous.stages[name].array("items"), 0) * mapped.same[:, None]
        save_record(writer, place_by_features(modality, rows, known, config, seed=seed, axes=axes, known=unchanged))
        save_part(writer, "axes", axes)

    return store.once(name, (features, copies, config, seed, *inputs_of(previous, name)), build)
