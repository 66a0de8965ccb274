"""The marks of right and wrong in a real browser: a click, the download, and the file as ``--labels`` reads it."""

from __future__ import annotations

import csv
import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.audit.inputs import AuditOptions
from tasks.audit.labels import read_labels
from tasks.audit.write import write_audit
from tests.support.audit_samples import Day

CHROMIUM = shutil.which("chromium")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
# Marks every card in turn, takes one mark back, and keeps what would be downloaded in the document.
CLICKS = """<script>
URL.createObjectURL = blob => { blob.text().then(text => { document.body.dataset.csv = text; }); return "#"; };
addEventListener("load", () => {
  document.querySelectorAll(".mark").forEach((group, at) => group.querySelectorAll("button")[at % 2].click());
  document.querySelector(".mark button").click();
  document.getElementById("download").click();
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the page in")
def test_marks_become_the_labels_that_the_audit_takes(tmp_path: Path) -> None:
    day = Day(tmp_path / "day")
    inputs = day.inputs()
    write_audit(tmp_path / "out", inputs, AuditOptions(fdr=0.2))
    page = tmp_path / "out" / "audit.html"
    # The policy lets the page's own script run: it counts the marks.
    assert "0 marked" in opened(tmp_path / "first", page)
    clicked = tmp_path / "clicked.html"
    policy = r'<meta http-equiv="Content-Security-Policy"[^>]*>'
    clicked.write_text(re.sub(policy, "", page.read_text()).replace("</body>", CLICKS + "</body>"))
    found = re.search(r'data-csv="([^"]*)"', opened(tmp_path / "second", clicked))
    assert found is not None
    labels = tmp_path / "labels.csv"
    labels.write_text(html.unescape(found[1]))
    with labels.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["item_id", "modality", "is_mismatch"]
    assert {x[2] for x in rows} == {"true", "false"} and len(rows) > 5
    read = read_labels(labels, inputs.source, list(inputs.modalities))
    assert sum(map(len, read.rows.values())) == len(rows) and not read.unknown_items


def opened(profile: Path, page: Path) -> str:
    command = [
        str(CHROMIUM),
        *OPTIONS,
        f"--user-data-dir={profile}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        page.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
