"""The run report: one self-contained HTML file, and a JSON twin beside it with the same numbers.

Both have a constant size in the number of items: counts, histograms, curves thinned to 200 points and at most 50 suspects per modality.
The page is rendered from the twin's own text, so the two cannot differ. ``tasks.report.facts`` documents the twin's shape.
"""

from __future__ import annotations

import json
from pathlib import Path

from tasks.report.facts import gather_facts
from tasks.report.inputs import Outcome, ReportInputs, StageTiming
from tasks.report.page import draw_plots, render_page
from tasks.report.summaries import Facts
from tasks.store.atomic_files import write_whole

__all__ = ["MAX_BYTES", "Outcome", "ReportInputs", "StageTiming", "write_report"]

MAX_BYTES = 2_000_000


def write_report(folder: Path, inputs: ReportInputs) -> Path:
    """Write ``report.json`` and then ``report.html`` into ``folder``, each whole or not at all, and return the page's path.

    The page stays below 2 MB: with very many modalities, fewer suspects of each are listed. Raises StorageError if a file cannot be
    written, and OSError or KeyError if a stage output lacks a file or a field.
    """
    text, page = _compose(gather_facts(inputs))
    _write(folder / "report.json", text)
    _write(folder / "report.html", page)
    return folder / "report.html"


def _compose(facts: Facts) -> tuple[str, str]:
    longest = max((len(modality["suspects"]) for modality in facts["modalities"]), default=0)
    plots = draw_plots(facts)
    while True:
        text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        page = render_page(json.loads(text), plots)
        if len(page.encode()) <= MAX_BYTES or not longest:
            return text, page
        longest //= 2
        for modality in facts["modalities"]:
            del modality["suspects"][longest:]


def _write(path: Path, text: str) -> None:
    failed = "report: writing {path} failed: {why}; free or fix the disk, then run again"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"), failed=failed)
