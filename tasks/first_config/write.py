"""Writing the first ``run.toml`` of a catalog, with a comment for what its owner has to decide."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.first_config.columns import Columns, Embedding, find_embeddings
from tasks.first_config.guesses import Guess, feedback_examples, guess_columns, quoted, which_is_which
from tasks.store.atomic_files import write_text

REQUIRED = ("item_column", "user_column")
_WHAT = {
    "item_column": "the item's id, in both files",
    "user_column": "the user's id, in the log",
    "time_column": "when the interaction was",
    "title_column": "shown in reports",
    "category_column": "shown in reports, and used to compare similar items",
    "text_column": "a description, shown in the audit",
    "picture_column": "a picture's URL, shown in the audit",
}
_REST = """
[publish]
uri = "warehouse/item_features"   # the Delta table: a local path or s3://

# [run]
# folder = "runs"                 # reports, logs and stage outputs

# [feature_store]
# enabled = true                  # serve the features from Feast after each run
"""


def write_first_config(folder: Path, catalog: str | None, interactions: str | None) -> dict[str, Any]:
    """Write ``run.toml`` into a folder and return what was found, as JSON values: the paths, the columns, and what is to be chosen.

    Without ``catalog`` and ``interactions`` the folder itself must hold exactly one of each. Nothing is chosen silently: of two columns
    that could be one key both are written as comments. Raises InputError, and StorageError if the file cannot be written.
    """
    path = folder / "run.toml"
    if path.exists():
        raise InputError(f"{path}: exists; init writes no file over another: choose another folder, or move that file")
    if catalog is None or interactions is None:
        if catalog is not None or interactions is not None:
            raise InputError("--catalog, --interactions: give both or none")
        catalog, interactions = which_is_which(str(folder), _inputs_in(folder))
    items, log = Columns.of(catalog), Columns.of(interactions)
    embeddings = find_embeddings(items)
    if not embeddings:
        kinds = ", ".join(f"{name} {kind}" for name, kind in list(items.types.items())[:30])
        raise InputError(f"{catalog}: no column holds embeddings, lists of numbers; it has {kinds}")
    guesses, modalities = guess_columns(items, log), _by_modality(embeddings)
    places = {"catalog": _place(catalog, folder), "interactions": _place(interactions, folder)}
    text = _source(places, items, log, guesses) + _modalities(modalities, embeddings) + _REST
    write_text(path, text, way_out="name a folder that can be written")
    chosen = {name: x.column for name, x in modalities.items() if x.column is not None}
    choose = {
        key: list(x.candidates) for key, x in guesses.items() if x.column is None and (x.candidates or key in REQUIRED)
    }
    choose |= {x.key: list(x.candidates) for x in modalities.values() if len(x.candidates) > 1}
    if not modalities:
        choose["a modality"] = [x.column for x in embeddings]
    return {
        "config": str(path),
        **places,
        "modalities": chosen,
        "columns": {key: x.column for key, x in guesses.items()},
        "choose": choose,
        "feedback": feedback_examples(log),
    }


def describe_first_config(result: dict[str, Any], program: str) -> str:
    """What was found and what to do next."""
    columns = ", ".join(f"{key.removesuffix('_column')} {x}" for key, x in result["columns"].items() if x)
    lines = [
        f"{result['config']} written",
        f"  catalog {result['catalog']}, log {result['interactions']}",
        f"  modalities: {', '.join(f'{name} ({column})' for name, column in result['modalities'].items()) or 'none is certain'}",
        f"  columns: {columns or 'none is certain'}",
    ]
    lines += [
        f"  choose {key}: {' or '.join(x) or 'no column looks like it'}; see the comments in the file"
        for key, x in result["choose"].items()
    ]
    if result["feedback"]:
        lines.append("  say which rows are positive feedback: see the comment at positive; without it all are")
    return "\n".join([*lines, f"next: {program} validate --config {shlex.quote(result['config'])}"])


def _inputs_in(folder: Path) -> list[str]:
    """The Parquet files of a folder, and its folders that hold some."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    entries = [x for x in sorted(folder.iterdir()) if not x.name.startswith(".")]
    return [str(x) for x in entries if x.suffix == ".parquet" or (x.is_dir() and _holds_parquet(x))]


def _holds_parquet(folder: Path) -> bool:
    # A table that runs publish is no input.
    published = any(folder.glob("as_of=*"))
    return not published and any(any(folder.glob(pattern)) for pattern in ("*.parquet", "*/*.parquet"))


def _place(uri: str, folder: Path) -> str:
    """An input as the config names it: relative to the folder if it lies below it."""
    if "://" in uri:
        return uri
    here, there = os.path.abspath(folder), os.path.abspath(uri)
    return os.path.relpath(there, here) if there.startswith(here + os.sep) else there


def _source(places: dict[str, str], items: Columns, log: Columns, guesses: dict[str, Guess]) -> str:
    lines = [
        "# Written by init from the columns of the files. Relative paths are relative to this file.",
        "",
        "[source]",
    ]
    for key, columns in (("catalog", items), ("interactions", log)):
        days = f"   # day folders {columns.days[0]} to {columns.days[-1]}" if columns.days else ""
        lines.append(f"{key} = {quoted(places[key])}{days}")
    for key, guess in guesses.items():
        lines += _lines(key, guess)
    examples = feedback_examples(log)
    if examples:
        lines.append("# Which rows are positive feedback. Without this all are. For example:")
    lines += [f"# {x}" for x in examples]
    lines.append("# lookback_days = 365   # read only so many days of the log; all by default")
    return "\n".join(lines) + "\n"


def _lines(key: str, guess: Guess) -> list[str]:
    what = _WHAT[key]
    if guess.column is not None:
        return [f"{key} = {quoted(guess.column)}   # {what}{f': {guess.taken_for}' if guess.taken_for else ''}"]
    must = "" if key not in REQUIRED else " It must be set."
    if not guess.candidates:
        return [f'# {key} = ""   # {what}; no column looks like it.{must}']
    choices = [f"# {key} = {quoted(x)}" for x in guess.candidates]
    return [f"# {what}: {len(choices)} columns could be it. Choose one.{must}", *choices]


def _by_modality(embeddings: list[Embedding]) -> dict[str, Guess]:
    """The columns of each modality that are certain to hold vectors."""
    found: dict[str, Guess] = {}
    for x in embeddings:
        if not x.doubt:
            known = found[x.modality].candidates if x.modality in found else ()
            found[x.modality] = Guess(key=f"modalities.{x.modality}", candidates=(*known, x.column))
    return found


def _modalities(modalities: dict[str, Guess], embeddings: list[Embedding]) -> str:
    lines = ["", "[source.modalities]   # name = embedding column"]
    for name, guess in modalities.items():
        rows = [f"{name} = {quoted(x)}" for x in guess.candidates]
        several = f"# {len(rows)} columns could be {name}. Choose one, or give each a name of its own."
        lines += rows if len(rows) == 1 else [several, *(f"# {x}" for x in rows)]
    doubtful = [x for x in embeddings if x.doubt]
    if doubtful:
        lines.append("# These may hold vectors." + ("" if modalities else " At least one must be set."))
    lines += [f"# {x.modality} = {quoted(x.column)}   # {x.doubt}" for x in doubtful]
    formats = [x for x in embeddings if x.format is not None]
    if formats:
        lines += ["", "[source.vector_formats]   # of vectors in text or bytes: json, float32, float64 or float16"]
    for x in formats:
        set_ = not x.doubt and modalities[x.modality].column is not None
        lines.append(f"{'' if set_ else '# '}{x.modality} = {quoted(str(x.format))}")
    return "\n".join(lines) + "\n"
