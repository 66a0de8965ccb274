"""Which embedding model made a modality's vectors, as ``source.embedding_models`` names it: those of two models are never compared.

The name goes with the rows into their commit, and from there to whoever compares or serves them. A day that names no model is compared
with any other, since nothing says that the model changed; so naming one that had no name before is no change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.table.log import DataFile, LogEntry, commit_of, days_shown

EMBEDDING_MODEL = "embedding_model"
SINCE = "embedding_model_since"


def is_another(before: str | None, now: str | None) -> bool:
    """Whether two models are known to be two."""
    return before is not None and now is not None and before != now


def named_models(commit: Mapping[str, Any]) -> dict[str, str]:
    """The models that a commit names, by modality."""
    facts = commit.get("facts")
    modalities = facts.get("modalities") if isinstance(facts, dict) else None
    found = modalities.items() if isinstance(modalities, dict) else ()
    return {m: x[EMBEDDING_MODEL] for m, x in found if isinstance(x, dict) and isinstance(x.get(EMBEDDING_MODEL), str)}


def model_notes(now: Mapping[str, str], before: Mapping[str, str], day: str, drifted: Sequence[str]) -> tuple[str, ...]:
    """What the gate did not compare with the last published ``day`` because another model made that, and of modalities that ``drifted``
    whether another model may be why: a line each."""
    notes = [
        f"{m}: made by {model} since this day, by {before[m]} before, last on {day}; not compared"
        for m, model in now.items()
        if is_another(before.get(m), model)
    ]
    for m in drifted:
        unnamed = "this day" if m not in now else day if m not in before else None
        if unnamed is not None:
            notes.append(
                f"{m}: {unnamed} names no embedding model (source.embedding_models.{m}), so whether it is another cannot be told"
            )
    return tuple(notes)


def model_tags(log: Sequence[LogEntry], shown: Sequence[DataFile]) -> dict[str, dict[str, str]]:
    """By modality the model that made the newest day's vectors, where it is named, and the day ``since`` when all days shown are its.

    ``log`` is oldest first, as ``read_log`` gives it.
    """
    days = days_shown(shown)[::-1]
    of_day = [named_models(commit_of(log, [x.path for x in shown if x.day == day])) for day in days]
    found = {}
    for m, model in of_day[0].items() if days else ():
        others = [at for at, models in enumerate(of_day) if models.get(m) != model]
        found[m] = {EMBEDDING_MODEL: model, SINCE: days[(others[0] if others else len(days)) - 1]}
    return found
