"""``rectify``: publish one day."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsOf, GivenConfig, command, given_day


@command(messages.format_night, prefect=True)
def rectify(
    config: GivenConfig,
    as_of: AsOf = None,
    allow_future: Annotated[
        bool, typer.Option("--allow-future", help="Publish a day after today, whose events are not all there yet.")
    ] = False,
) -> dict[str, Any]:
    """Publish the rectified features of one day."""
    from flows.rectify_day import rectify_day

    return rectify_day(config.path, config.overrides, given_day(as_of), allow_future=allow_future)
