"""Whether this container can do its work; exit status 0 or 1, and one line that says why not.

HEALTH_URL, where it is set, must answer with 200: a Prefect server's or a worker's own page. So must PREFECT_API_URL's ``/health``,
for a run without its server is a run that nobody sees. A one-off command has neither and is healthy while it runs.
"""

import os
import sys
import urllib.error
import urllib.request


def reason(url: str) -> str | None:
    """Why ``url`` does not answer; None where it does."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return None if answer.status == 200 else f"{url}: answered {answer.status}"
    except (urllib.error.URLError, OSError, ValueError) as error:
        return f"{url}: {error}"


if __name__ == "__main__":
    api = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    urls = [x for x in (os.environ.get("HEALTH_URL"), api and f"{api}/health") if x]
    sys.exit("; ".join(x for x in map(reason, urls) if x) or 0)
