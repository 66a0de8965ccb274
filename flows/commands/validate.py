"""``validate``: what a run would read and take each column for, and every mistake at once. Nothing is computed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.commands import messages
from flows.commands.shared import AsOf, FailedInPart, GivenConfig, Result, command, given_day


@command(messages.format_validation)
def validate(
    config: GivenConfig,
    as_of: AsOf = None,
    allow_future: Annotated[bool, typer.Option("--allow-future", help="Allow a day after today.")] = False,
) -> Result:
    """Check config, columns, ids and times, and say what each column is taken for; exit status 2 if anything is wrong."""
    result = _validated(config, as_of, allow_future)
    problems = result["problems"]
    if not problems:
        return result
    more = f" (and {len(problems) - 1} more, listed above)" if len(problems) > 1 else ""
    return FailedInPart(result=result, code=2, line=f"{problems[0]}{more}")


def _validated(config: GivenConfig, as_of: str | None, allow_future: bool) -> dict[str, Any]:
    from flows.config.run_config import RunConfig
    from tasks.errors import InputError

    result: dict[str, Any] = {"config": str(config.path), "as_of": None, "readings": [], "warnings": [], "ids": None}
    mistakes = RunConfig.mistakes(config.path, config.overrides)
    if mistakes:
        return result | {"problems": [f"{config.path}: {x}" for x in mistakes]}
    from tasks.source.id_hints import check_ids
    from tasks.source.inspect import find_problems
    from tasks.source.read import resolve_day, today_in

    source, problems = config.read().source, list[str]()
    try:
        day = resolve_day(source, given_day(as_of), allow_future=allow_future)
    except InputError as error:
        problems, day = [str(error)], today_in(source)
    found, others = find_problems(source, day)
    problems += [x for x in others if x not in problems]
    result |= {"as_of": day.isoformat(), "problems": problems}
    if found is None:
        return result
    result |= {"readings": [x.values for x in found.readings], "warnings": list(found.notes)}
    try:
        ids = check_ids(found, source)
        result["ids"] = {"looked_at": ids.looked_at, "known": ids.known}
        if ids.remedy is not None:
            missing = f"{ids.looked_at - ids.known:,} of {ids.looked_at:,} item ids are not in the catalog"
            problems.append(f"{source.interactions}: {missing}: {ids.remedy}")
    except InputError as error:
        problems.append(str(error))
    return result
