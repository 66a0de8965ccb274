"""Runs on an object store that fails: every few requests, slowly, at one kind of request for good, or with credentials it does not know.

Either the run ends well, with the very rows of a sound night, or in one line with nothing half published, and the next run ends well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
from deltalake import DeltaTable

from tests.support.flow.flow_support import CommandLine, Published, move_to_s3, rows_of, table_uri
from tests.support.table.s3_proxy import Fault, Weather, serve_s3_proxy
from tests.support.table.s3_server import s3_environment, serve_s3

KEY, SECRET = "AKIAFLOWFAULTS", "wJalrXUtnFEMIK7MDENGbPxRfiCYFAULTSKEY"


class Lake(NamedTuple):
    """A demo whose inputs and table lie in S3 behind a proxy; ``direct`` goes around the proxy."""

    demo: Path
    uri: str
    weather: Weather
    environment: dict[str, str]
    direct: dict[str, str]

    def rows(self, day: str) -> object:
        """The published rows, as a reader beside the proxy sees them."""
        return rows_of(self.uri, day, storage_options=self.direct)

    def is_there(self) -> bool:
        """Whether there is a table at all."""
        return bool(DeltaTable.is_deltatable(self.uri, self.direct))


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with serve_s3() as address:
        yield address


@pytest.fixture
def lake(demo: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    for name in [x for x in os.environ if x.startswith("AWS_")]:
        monkeypatch.delenv(name)
    client = boto3.client(
        "s3", endpoint_url=store, region_name="us-east-1", aws_access_key_id=KEY, aws_secret_access_key=SECRET
    )
    with serve_s3_proxy(store) as (address, weather):
        uri = move_to_s3(demo, client)
        yield Lake(demo, uri, weather, *(s3_environment(x, KEY, SECRET) for x in (address, store)))
    for found in client.list_objects_v2(Bucket="lake").get("Contents", []):
        client.delete_object(Bucket="lake", Key=found["Key"])
    client.delete_bucket(Bucket="lake")


def _bad_night(number: int, method: str, path: str) -> Fault:
    for every, fault in ((7, 503), (9, 500), (11, 0.3), (13, "hang up"), (17, "half")):
        # Half of an answer to a question about the log is none of ours to mend: see what is read of the data.
        if number % every == 0 and not (fault == "half" and "part-" not in path):
            return fault
    return None


@pytest.mark.slow
def test_a_store_that_fails_every_few_requests_costs_time_alone(
    lake: Lake, cli: CommandLine, one_day: Published
) -> None:
    day = one_day.days[0]
    lake.weather.clear(_bad_night)
    finished = cli.rectify(lake.demo, day, environment=lake.environment)
    assert finished.code == 0, finished.err
    assert {503, 500, "hang up"} <= {fault for _, _, fault in lake.weather.seen}
    assert lake.rows(day) == rows_of(table_uri(one_day.demo), day)


# Which requests fail for good from the start of a run, what the run ends in and what its line says; what is published is whole or absent.
GONE: dict[str, tuple[str, str, int, str]] = {
    "looking at the inputs": (
        r"HEAD|GET",
        r"/lake/shop/catalog",
        2,
        "s3://lake/shop/catalog.*: the object store did not answer",
    ),
    "reading the log": (r"GET", r"interactions/.*\.parquet", 2, "the object store did not answer"),
    "opening the table": (r"GET", r"_delta_log/_last_checkpoint", 1, "table s3://.*: opening it failed"),
    "writing rows": (r"PUT|POST", r"/part-", 1, "table s3://.*: writing the rows failed: .*nothing was published"),
    "reading rows back": (
        r"GET",
        r"item_features/.*/part-",
        1,
        "table s3://.*: reading back the rows failed: .*nothing was published",
    ),
    "committing": (r"PUT", r"_delta_log/", 1, "table s3://.*: the commit failed: .*nothing was published"),
    "recording the trend": (r"PUT|POST", r"item_features-trend/", 1, "the published rows are not affected"),
}


@pytest.mark.parametrize("what", GONE)
@pytest.mark.slow
def test_a_store_that_fails_for_good_at_one_thing(lake: Lake, cli: CommandLine, one_day: Published, what: str) -> None:
    methods, path, code, said = GONE[what]
    day, whole = one_day.days[0], rows_of(table_uri(one_day.demo), one_day.days[0])
    lake.weather.clear(
        lambda number, method, asked: 503 if re.fullmatch(methods, method) and re.search(path, asked) else None
    )
    finished = cli.rectify(lake.demo, day, environment=lake.environment)
    assert finished.code == code, finished.err
    assert re.search(said, finished.error), finished.error
    assert lake.weather.faults
    assert lake.is_there() == (what == "recording the trend")
    assert SECRET not in finished.err
    lake.weather.clear()
    again = cli.rectify(lake.demo, day, environment=lake.environment)
    assert again.code == 0, again.err
    assert lake.rows(day) == whole
    assert DeltaTable(lake.uri, storage_options=lake.direct).version() == 0


def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(
    lake: Lake, cli: CommandLine, one_day: Published
) -> None:
    day, lost = one_day.days[0], []

    def fault(number: int, method: str, path: str) -> Fault:
        if method == "PUT" and "_delta_log/" in path and not lost:
            lost.append(path)
            return "lose the answer"
        return None

    lake.weather.clear(fault)
    finished = cli.rectify(lake.demo, day, environment=lake.environment)
    assert finished.code == 0, finished.err
    assert lost
    assert DeltaTable(lake.uri, storage_options=lake.direct).version() == 0
    assert lake.rows(day) == rows_of(table_uri(one_day.demo), day)


def _everything(fault: Fault) -> Callable[[int, str, str], Fault]:
    return lambda number, method, path: fault


@pytest.mark.parametrize(
    ("fault", "override", "said"),
    [
        (403, "seed=0", "refused the credentials of this environment .*check AWS_ACCESS_KEY_ID"),
        (None, "source.catalog='s3://nowhere-at-all/catalog'", "s3://nowhere-at-all/catalog: "),
        (
            None,
            f"source.catalog='s3://{KEY}:{SECRET}@lake/shop/catalog'",
            "source.catalog: holds credentials; take them out",
        ),
        (None, "run.folder='s3://lake/runs'", r"run\.folder: .*a local or shared disk"),
    ],
    ids=["unknown credentials", "no such bucket", "credentials in the config", "stages in S3"],
)
def test_what_the_user_has_to_mend_is_said_without_any_secret(
    lake: Lake, cli: CommandLine, one_day: Published, fault: Fault, override: str, said: str
) -> None:
    lake.weather.clear(_everything(fault))
    finished = cli.rectify(lake.demo, one_day.days[0], "--set", override, environment=lake.environment)
    assert finished.code == 2, finished.err
    assert re.search(said, finished.error), finished.error
    assert SECRET not in finished.out + finished.err
    assert not lake.is_there()
