"""Lineage as OpenLineage events, over a real HTTP server, and a run that nobody listens to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tasks.observe.lineage import dataset_name
from tests.support.flow_support import CommandLine, Published, table_uri


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that takes lineage events, and those it was told."""
    told: list[dict[str, Any]] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/api/v1/lineage"
            told.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", told
        finally:
            server.shutdown()
            thread.join()


def test_what_a_run_reads_and_writes_is_told(published: Published, cli: CommandLine) -> None:
    demo, day = published.demo, published.tomorrow
    with listening() as (url, told):
        named = ("--set", "source.embedding_models.image=encoder@1")
        refused = cli.rectify(
            demo, day, "--set", "quality.max_marginal_error=0.0", environment={"OPENLINEAGE_URL": url}
        )
        assert refused.code == 3, refused.err
        result = cli.published(demo, day, *named, environment={"OPENLINEAGE_URL": url})
    assert [x["eventType"] for x in told] == ["START", "FAIL", "START", "COMPLETE"]
    assert len({x["run"]["runId"] for x in told}) == 2 and told[0]["run"]["runId"] == told[1]["run"]["runId"]
    assert {x["job"]["name"] for x in told} == {"rectify.item_features"}
    for event in told:
        assert [(x["namespace"], x["name"]) for x in event["inputs"]] == [
            ("file", str(demo / x)) for x in ("catalog", "interactions")
        ]
        assert [(x["namespace"], x["name"]) for x in event["outputs"]] == [("file", table_uri(demo))]
        assert event["run"]["facets"]["nominalTime"]["nominalStartTime"].startswith(day)
        assert event["run"]["facets"]["parent"]["run"]["runId"]
    failed, done = told[1], told[3]
    assert "error: " + failed["run"]["facets"]["errorMessage"]["message"] == refused.error
    checks = {x["name"]: x for x in failed["run"]["facets"]["test"]["tests"]}
    assert checks["image: mean column error of the plan"]["status"] == "fail"
    assert checks["image: mean column error of the plan"]["severity"] == "error"
    assert all(x["status"] == "pass" for x in done["run"]["facets"]["test"]["tests"])
    assert not failed["outputs"][0]["outputFacets"]
    (written,) = done["outputs"]
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == result["rows"]
    assert written["facets"]["version"]["datasetVersion"] == str(result["version"])
    (tag,) = written["facets"]["tags"]["tags"]
    assert (tag["key"], tag["value"], tag["field"]) == ("embedding_model", "encoder@1", "image")
    assert {x["name"] for x in written["facets"]["schema"]["fields"]} >= {
        "as_of",
        "item_id",
        "image",
        "image_trust",
        "run_id",
    }


@pytest.mark.slow
def test_a_run_that_nobody_listens_to_goes_on(published: Published, cli: CommandLine) -> None:
    # Nothing listens on the discard port.
    finished = cli.rectify(published.demo, published.days[-1], environment={"OPENLINEAGE_URL": "http://127.0.0.1:9"})
    assert finished.code == 0, finished.err
    assert "telling its lineage failed, the run is none the worse for it" in finished.err


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("/data/items", ("file", "/data/items")),
        ("s3://bucket/a/b", ("s3://bucket", "a/b")),
        ("s3://bucket", ("s3://bucket", "/")),
    ],
)
def test_datasets_are_named_as_openlineage_wants(place: str, named: tuple[str, str]) -> None:
    assert dataset_name(place) == named
