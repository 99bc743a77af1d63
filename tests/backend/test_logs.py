"""The text log on a terminal: control characters are escaped."""

import logging
import re

import pytest
import structlog
from flask.testing import FlaskClient

from backend.app import create_app
from backend.config import Settings
from backend.web import logs

COLOUR = re.compile(r"\x1b\[\d+m")
"""Escape sequences with which the log colours its own words."""
CONTROLS = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
HOSTILE = f"begin{CONTROLS}end"


def executed_controls(log: str) -> set[str]:
    """Return the control characters that a terminal would execute, except newlines and colours."""
    return set(COLOUR.sub("", log)) & set(CONTROLS) - {"\n"}


def test_no_caller_writes_to_the_terminal_that_shows_the_log(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client: FlaskClient = create_app(Settings(database_url=database_url, log_format="text")).test_client()
    capsys.readouterr()
    assert client.get("/%1b%5b2J%c2%9b2Jred").status_code == 404
    log = capsys.readouterr().err
    assert executed_controls(log) == set()
    assert log.count("\n") == 1
    assert r"/\x1b[2J" in COLOUR.sub("", log)


@pytest.mark.parametrize("library", [False, True], ids=["own", "library's"])
def test_every_control_character_in_a_line_is_escaped(library: bool, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("INFO", "text")
    if library:
        logging.getLogger("library").warning("received %s", HOSTILE)
    else:
        structlog.get_logger("own").warning(HOSTILE, value=HOSTILE, several=[HOSTILE])
    log = capsys.readouterr().err
    assert executed_controls(log) == set()
    assert log.count("\n") == 1
    assert log.count("end") == (1 if library else 3)


@pytest.mark.parametrize("library", [False, True], ids=["own", "library's"])
def test_a_traceback_keeps_its_lines_and_no_other_control_character(
    library: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("INFO", "text")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        (logging.getLogger("library") if library else structlog.get_logger("own")).exception("failed")
    log = capsys.readouterr().err
    assert executed_controls(log) == set()
    assert "\nTraceback (most recent call last):\n  File " in log
    assert r"ValueError: begin\x00" in log
