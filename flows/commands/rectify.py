"""``python -m flows rectify``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsJson, ConfigFile, Debug, Overrides, given_day, run_command


def rectify(
    config: ConfigFile,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="The day to publish, YYYY-MM-DD; the newest in the data by default.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Publish the rectified features of one day."""

    def work() -> dict[str, Any]:
        from flows.nightly import rectify_day

        return rectify_day(config, overrides or (), given_day(as_of))

    run_command(work, as_json, debug, messages.format_night, prefect=True)
