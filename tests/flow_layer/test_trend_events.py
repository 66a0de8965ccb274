"""A jump of the mismatch rate reaches a Prefect server as an event and sets an automation going; without a server nothing breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import Any

from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.steps import asset_key
from tasks.observe.trend_events import JUMPED, emit_jumps
from tasks.table.config import PublishConfig
from tasks.table.trend import find_jumps
from tests.support.flow.flow_support import ROOT, ask_prefect
from tests.support.table.trend_samples import entry

STARTED = "2000-01-01T00:00:00Z"
ASSET = asset_key(PublishConfig(uri="s3://jumps/features"))
DAYS = [
    entry("2024-03-01", {"image": (0.1, 0.08, 0.12), "text": None}),
    entry("2024-03-02", {"image": (0.3, 0.27, 0.33), "text": None}),
]


def events(url: str, prefix: str, resource: str) -> list[dict[str, Any]]:
    """Events of that name and resource, waited for."""
    question = {
        "filter": {"event": {"prefix": [prefix]}, "resource": {"id": [resource]}, "occurred": {"since": STARTED}}
    }
    end = time.monotonic() + 30
    while True:
        found: list[dict[str, Any]] = ask_prefect(url, "events", question)["events"]
        if found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def create_automation(url: str) -> str:
    """An automation that a jump in images triggers; its id."""
    trigger = {
        "type": "event",
        "posture": "Reactive",
        "expect": [JUMPED],
        "match": {"prefect.resource.id": ASSET, "catalog-rectifier.modality": "image"},
        "threshold": 1,
        "within": 0,
    }
    body = {"name": "jumped", "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    request = urllib.request.Request(
        f"{url}/automations/", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])


def test_a_jump_is_an_event_that_an_automation_acts_on(prefect_server: str) -> None:
    automation = create_automation(prefect_server)
    jumps = find_jumps(DAYS, "2024-03-02")

    @flow(name="only-jumps")
    def only_jumps() -> None:
        emit_jumps(ASSET, jumps)

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        only_jumps()
    (told,) = events(prefect_server, JUMPED, ASSET)
    assert told["payload"] == jumps[0]
    assert told["payload"]["before"]["high"] < told["payload"]["now"]["low"]
    assert told["resource"]["catalog-rectifier.modality"] == "image"
    assert any(x["prefect.resource.id"].startswith("prefect.flow-run.") for x in told["related"])
    assert events(prefect_server, "prefect.automation.triggered", f"prefect.automation.{automation}")


def test_without_a_server_the_run_goes_on() -> None:
    # Nothing listens on the discard port; the process must end well, and soon.
    jumps = find_jumps(
        [entry("2024-03-01", {"image": None}), entry("2024-03-02", {"image": (0.3, 0.2, 0.4)})], "2024-03-02"
    )
    code = "import json, sys\nfrom tasks.observe.trend_events import emit_jumps\nemit_jumps('s3://b/t', json.loads(sys.argv[1]))\nprint('went on')\n"
    environment = {**os.environ, "PREFECT_API_URL": "http://127.0.0.1:9/api", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(jumps)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "went on\n"), done.stderr
    assert "mismatch rate of image jumped since 2024-03-01: cannot be told -> 0.300 [0.200, 0.400]" in done.stderr
