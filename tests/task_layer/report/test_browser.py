"""The report in a real browser: it opens within a second, fetches nothing, and shows what it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.report.render import write_report
from tests.support.report_samples import PageText, Run

CHROMIUM = shutil.which("chromium")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
TIMING = """<script>addEventListener('load', () => setTimeout(() => {
document.body.dataset.load = performance.getEntriesByType('navigation')[0].loadEventEnd;
document.body.dataset.fetched = performance.getEntriesByType('resource').length}, 0))</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the report in")
def test_a_browser_opens_it_within_a_second(tmp_path: Path) -> None:
    page = write_report(tmp_path / "out", Run(tmp_path, items=3_000).inputs())
    dom = PageText(_opened(tmp_path / "shown", page))
    assert "PUBLISHED (version 3)" in dom.text
    assert [tag for tag, name, _ in dom.attributes if name.lower() == "viewbox"] == ["svg"] * 10
    # The page's policy forbids scripts.
    without_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    timed = tmp_path / "timed.html"
    timed.write_text(without_policy.replace("</body>", TIMING + "</body>"))
    results = [
        re.search(r'data-load="([\d.]+)" data-fetched="(\d+)"', _opened(tmp_path / f"timed-{i}", timed))
        for i in range(2)
    ]
    assert all(x is not None and x[2] == "0" for x in results)
    assert 0 < min(float(x[1]) for x in results if x is not None) < 1000


def _opened(profile: Path, page: Path) -> str:
    """Return the document as the browser holds it after loading."""
    command = [str(CHROMIUM), *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
