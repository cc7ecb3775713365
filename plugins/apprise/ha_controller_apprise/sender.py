"""Sends one message with apprise: a process of its own, that may block, leak or be killed.

On standard input comes JSON with `url`, `title`, `body` and `kind`; the last line on standard output is JSON: whether
apprise knows the URL, whether the message was delivered, the service's name, and the number of its answer. Never a URL.
"""

from __future__ import annotations

import json
import logging
import re
import sys


class _Statuses(logging.Handler):
    """Of what the library says, only the numbers of answers are kept: its texts may quote the URL."""

    def __init__(self) -> None:
        super().__init__()
        self.last: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"error=(\d{3})\b", record.getMessage()):
            self.last = int(found[1])


def main() -> None:
    """Send it."""
    given = json.load(sys.stdin)
    import apprise  # takes half a second

    statuses = _Statuses()
    logger = logging.getLogger("apprise")
    logger.addHandler(statuses)
    logger.propagate = False
    asset = apprise.AppriseAsset(app_id="ha-controller", async_mode=False, storage_mode="memory", secure_logging=True)
    sender = apprise.Apprise(asset=asset)
    told: dict[str, object] = {"known": sender.add(given["url"]) and len(sender) == 1, "delivered": False}
    if told["known"]:
        told["service"] = str(sender[0].service_name)
        delivered = sender.notify(
            body=given["body"], title=given["title"], notify_type=given["kind"], body_format=apprise.NotifyFormat.TEXT
        )
        told |= {"delivered": bool(delivered), "status": statuses.last}
    sys.stdout.write(f"\n{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
