"""Standard `logging` becomes lines of the execution."""

from __future__ import annotations

import logging
from typing import Any

from bifrost_kernel import log_capture, testing


def test_records_become_lines_with_their_level() -> None:
    """From INFO upwards, with the logger's name and the traceback of an exception."""
    made = testing.make_context()
    logger = logging.getLogger("acme.sync")
    with log_capture.capture(made.log):
        logger.debug("unseen")
        logger.info("user %s", "a")
        logger.log(35, "between")
        try:
            raise ValueError("boom")
        except ValueError:
            logger.exception("failed")
    logger.warning("afterwards")
    assert [(event["level"], event["data"]["logger"]) for event in made.events] == [
        ("info", "acme.sync"),
        ("warning", "acme.sync"),
        ("error", "acme.sync"),
    ]
    assert made.events[0]["message"] == "user a"
    assert "ValueError: boom" in made.events[2]["message"]


def test_noisy_libraries_are_quiet_unless_asked() -> None:
    """HTTP clients log each request; only their warnings are lines."""
    made = testing.make_context()
    with log_capture.capture(made.log):
        logging.getLogger("httpx").info("GET /")
        logging.getLogger("urllib3.connectionpool").warning("retrying")
    assert [event["message"] for event in made.events] == ["retrying"]
    assert logging.getLogger("httpx").level == logging.NOTSET


def test_logging_while_logging_ends() -> None:
    """A broker client that logs does not log for ever, and its line is not lost."""
    lines: list[str] = []

    def log(level: str, message: str, data: Any = None) -> None:
        logging.getLogger("inner").warning("while sending")
        lines.append(message)

    with log_capture.capture(log):
        logging.getLogger("outer").warning("one")
    assert lines == ["one"]
