"""The embedding model of a modality's vectors, as ``source.embedding_models`` names it. Vectors of two models are never compared.

The commit of the rows holds the name. A day without a name is compared with any other, since the model may be the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.table.log import DataFile, LogEntry, commit_of, days_shown

EMBEDDING_MODEL = "embedding_model"
SINCE = "embedding_model_since"


def is_another(before: str | None, now: str | None) -> bool:
    """Return whether two models are known to differ."""
    return before is not None and now is not None and before != now


def named_models(commit: Mapping[str, Any]) -> dict[str, str]:
    """Return the models that a commit names, by modality."""
    facts = commit.get("facts")
    modalities = facts.get("modalities") if isinstance(facts, dict) else None
    items = modalities.items() if isinstance(modalities, dict) else ()
    return {m: x[EMBEDDING_MODEL] for m, x in items if isinstance(x, dict) and isinstance(x.get(EMBEDDING_MODEL), str)}


def model_notes(now: Mapping[str, str], before: Mapping[str, str], day: str, drifted: Sequence[str]) -> tuple[str, ...]:
    """Return a line for each modality that was not compared with the last published ``day`` because its model changed.

    A modality that ``drifted`` gets a line if an unnamed model may be the reason.
    """
    notes = [
        f"{m}: made by {model} since this day, by {before[m]} before, last on {day}; not compared"
        for m, model in now.items()
        if is_another(before.get(m), model)
    ]
    for m in drifted:
        unnamed = "this day" if m not in now else day if m not in before else None
        if unnamed is not None:
            notes.append(
                f"{m}: {unnamed} names no embedding model (source.embedding_models.{m}); it may be another one"
            )
    return tuple(notes)


def model_tags(log: Sequence[LogEntry], shown: Sequence[DataFile]) -> dict[str, dict[str, str]]:
    """Return by modality the named model of the newest day, and the first of the days shown in a row that have it.

    ``log`` is oldest first, as ``read_log`` returns it.
    """
    days = days_shown(shown)[::-1]
    of_day = [named_models(commit_of(log, [x.path for x in shown if x.day == day])) for day in days]
    tags = {}
    for m, model in of_day[0].items() if days else ():
        others = [at for at, models in enumerate(of_day) if models.get(m) != model]
        tags[m] = {EMBEDDING_MODEL: model, SINCE: days[(others[0] if others else len(days)) - 1]}
    return tags
