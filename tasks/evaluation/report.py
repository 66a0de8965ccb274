"""The evaluation's report: one self-contained HTML file with a JSON twin, and the same tables and pictures as files for documents.

The page is rendered from the twin's own text, so the two cannot differ. ``tasks.evaluation.facts`` documents the twin's shape.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from jinja2 import Template
from markupsafe import Markup

from tasks.evaluation.facts import gather_evaluation
from tasks.evaluation.figures import Drawing, drawings
from tasks.evaluation.panels import DOCUMENT, PAGE, is_narrow, png, svg
from tasks.evaluation.tables import Table, markdown, starred, tables
from tasks.report.page_templates import page_environment
from tasks.report.summaries import Facts
from tasks.store.atomic_files import write_whole

HTML, TWIN, MARKDOWN = "evaluation.html", "evaluation.json", "evaluation.md"
_SHOWN_WITH = {
    "clean": ("clean",),
    "damage": ("stress",),
    "control": ("controls",),
    "variant": ("variants", "sweep-"),
    "editing": ("editing-",),
}
_TITLES = {
    "clean": "Clean features",
    "damage": "Under damage",
    "control": "Controls",
    "variant": "Variants and sweeps",
    "noised": "Noised or edited interactions",
    "editing": "Edge editing",
    "aligned": "Aligned editing",
    "groups": "Who gains",
    "features": "The features",
    "edits": "The editings",
    "all": "Every condition",
}


def write_evaluation_report(folder: Path, results: Path) -> Path:
    """Write ``evaluation.json`` and then ``evaluation.html`` into ``folder``, each whole or not at all, and return the page's path.

    ``results`` is the Parquet with a row a cell; per-user values are read from ``per_user.parquet`` beside it, and without them the only
    test is across seeds. Raises InputError if the results cannot be read or lack a column, StorageError if a file cannot be written.
    """
    text = _twin(gather_evaluation(results))
    _write(folder / TWIN, text.encode())
    _write(folder / HTML, render_evaluation(json.loads(text)).encode())
    return folder / HTML


def write_evidence(folder: Path, results: Path) -> list[Path]:
    """Write the opening and the tables as ``evaluation.md`` and the pictures as PNG beside it; return the paths, the document's first.

    The same results give the same bytes. Raises what ``write_evaluation_report`` does.
    """
    text = _twin(gather_evaluation(results))
    facts, written = json.loads(text), list[Path]()
    drawn = drawings(facts)
    for drawing in drawn:
        written.append(folder / f"{drawing.key}.png")
        _write(written[-1], png(drawing.draw(DOCUMENT)))
    _write(folder / MARKDOWN, _document(facts, drawn).encode())
    return [folder / MARKDOWN, *written]


def render_evaluation(facts: Facts) -> str:
    """One HTML document without scripts, nothing fetched, every string from ``facts`` escaped."""
    drawn = drawings(facts)
    drawn_on = {x.key: x.draw(PAGE) for x in drawn}
    pictures = {key: Markup(svg(figure, key)) for key, figure in drawn_on.items()}
    narrow = {key for key, figure in drawn_on.items() if is_narrow(figure)}
    sections = list(_sections(tables(facts), drawn))
    page = _template().render(facts=facts, sections=sections, pictures=pictures, narrow=narrow)
    return page.lstrip()


def _sections(made: list[Table], drawn: list[Drawing]) -> list[Facts]:
    """Each question's pictures and table together; a picture without a table of its own still has a section."""
    by_key = {table.key: table for table in made}
    found = []
    for key, title in _TITLES.items():
        prefixes = _SHOWN_WITH.get(key, ())
        shown = [x for x in drawn if x.key.startswith(prefixes)]
        if key in by_key or shown:
            found.append({"key": key, "title": title, "table": by_key.get(key), "drawings": shown})
    return found


def _document(facts: Facts, drawn: list[Drawing]) -> str:
    opening = facts["opening"]
    said = [f"**{opening['headline']}.** {starred(opening['paragraph'])}"]
    said.append("\n".join(f"- **{line['backbone']}**: {starred(line['text'])}" for line in opening["lines"]))
    if opening["lines"]:
        said.append(
            "Stars are of p after Holm's correction within a question, and within the amount of damage that the first paragraph speaks of: "
            + starred("* below .05, ** below .01, *** below .001.")
        )
    for section in _sections(tables(facts), drawn):
        key = section["key"]
        said.append(f"## {section['title']}")
        said += [f"![{x.title}]({x.key}.png)\n\n{x.caption}" for x in section["drawings"]]
        if section["table"]:
            table: Table = section["table"]
            whole = markdown(table)
            if key == "all":
                whole = f"<details><summary>{len(table.rows):,} conditions</summary>\n\n{whole}\n\n</details>"
            said += [x for x in (f"**{table.title}**", table.note, whole) if x]
    text = "\n\n".join(x for x in said if x) + "\n"
    return text.replace("\u00a0", " ")


def _twin(facts: Facts) -> str:
    return json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@cache
def _template() -> Template:
    return page_environment().get_template("evaluation.html.j2")


def _write(path: Path, content: bytes) -> None:
    failed = "evaluation: writing {path} failed: {why}; free or fix the disk, then run again"
    write_whole(path, lambda temporary: temporary.write_bytes(content), failed=failed)
