"""The report in a real browser: it opens within a second, fetches nothing, and shows what it should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib.image import imread

from tasks.report.render import write_report
from tests.support.report_samples import PageText, Run

CHROMIUM = shutil.which("chromium")
QUIET = [
    *(
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
    ),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the report in")
def test_a_browser_opens_it_within_a_second(tmp_path: Path) -> None:
    inputs = Run(tmp_path, items=3_000).inputs()
    page = write_report(tmp_path / "out", inputs)
    timed = tmp_path / "timed.html"
    script = (
        "<script>addEventListener('load',()=>setTimeout(()=>{const t=performance.getEntriesByType('navigation')[0];"
        "document.body.dataset.load=t.loadEventEnd;document.body.dataset.fetched=performance.getEntriesByType('resource').length},0))</script>"
    )
    open_to_scripts = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    timed.write_text(open_to_scripts.replace("</body>", script + "</body>"))
    loads = [_load_milliseconds(_chromium(tmp_path / f"timed-{i}", timed, "--dump-dom").stdout) for i in range(2)]
    assert 0 < min(loads) < 1000
    dom = PageText(_chromium(tmp_path / "shown", page, "--dump-dom").stdout)
    assert "PUBLISHED (version 3)" in dom.text
    assert [tag for tag, name, _ in dom.attributes if name.lower() == "viewbox"] == ["svg"] * 10
    picture = tmp_path / "page.png"
    _chromium(tmp_path / "drawn", page, f"--screenshot={picture}", "--window-size=1400,3000")
    _assert_drawn(picture)


def _load_milliseconds(document: str) -> float:
    shown = re.search(r'data-load="([\d.]+)" data-fetched="(\d+)"', document)
    assert shown is not None, document[-500:]
    assert shown[2] == "0", "the page fetched something"
    return float(shown[1])


def _chromium(profile: Path, page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(CHROMIUM), *QUIET, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


def _assert_drawn(picture: Path) -> None:
    """The banner's green, the plots' blue and dark text are all on the picture, and most of it is page."""
    pixels = (imread(picture)[:, :, :3] * 255).round().astype(int)
    assert pixels.shape[:2] == (3000, 1400)
    for colour, least in (((227, 244, 238), 50_000), ((0, 114, 178), 1_000), ((20, 24, 31), 2_000)):
        assert (pixels == colour).all(axis=2).sum() >= least, colour
    assert 0.5 < (pixels > 200).all(axis=2).mean() < 0.99
