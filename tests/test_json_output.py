"""Each command of the terminal prints its result as JSON with `--json`, with the exit code that it has without."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from backend.cli import main as server
from backend.database.models import Trial
from lightning_bso.console.cli import main
from tests.calls import Calls
from tests.databases import connected

WITHOUT_A_RESULT = {"serve", "server serve", "server db migrate"}
"""The first two run until they are stopped. The last writes a source file, for developers."""


def commands(help_of: Callable[..., str], *words: str) -> Iterator[tuple[str, ...]]:
    """All commands below one. A help lists them indented, under a title."""
    *title, listed = re.split("^(?:Commands:|  COMMAND)$", help_of(*words), flags=re.MULTILINE)
    below = re.findall(r"^ {2,4}([a-z][a-z-]+)(?:  |$)", listed, re.MULTILINE) if title else []
    for word in below:
        yield from commands(help_of, *words, word)
    if not below:
        yield words


def run(database_url: str, *arguments: str, typed: str | None = None) -> Result:
    return CliRunner().invoke(server, [*arguments, f"--database-url={database_url}"], input=typed)


def printed(database_url: str, *arguments: str, typed: str | None = None) -> Any:
    """The JSON that a command prints. All of its standard output is JSON."""
    done = run(database_url, *arguments, "--json", typed=typed)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_every_command_has_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    def help_of(*words: str) -> str:
        if words[:1] in (("server",), ("serve",)):  # `main` hands these over
            return CliRunner().invoke(server, [*words[words[0] == "server" :], "--help"]).stdout
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        return capsys.readouterr().out

    found = {" ".join(words) for words in commands(help_of)}
    assert {"ping", "server replay", "server user create"} | WITHOUT_A_RESULT <= found
    assert {command for command in found if "--json" not in help_of(*command.split())} == WITHOUT_A_RESULT


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@on_sqlite
def test_the_schema_version(database_url: str) -> None:
    checked = printed(database_url, "db", "check")
    assert re.fullmatch(r"\d{4}", checked["schema_version"])
    assert printed(database_url, "db", "upgrade") == checked


@on_sqlite
def test_a_replay_and_what_it_finds(calls: Calls, database_url: str) -> None:
    calls.register()
    calls.must(calls.report(calls.trial(), metric=0.9))
    assert printed(database_url, "replay", "train") == {"job_id": "train", "trials": 1, "differences": []}
    with connected(database_url) as connection:
        connection.execute(update(Trial).values(reason="another one"))
    differing = run(database_url, "replay", "train", "--json")
    assert differing.exit_code == 1 == run(database_url, "replay", "train").exit_code
    (difference,) = json.loads(differing.stdout)["differences"]
    assert difference in run(database_url, "replay", "train").stderr
    unknown = run(database_url, "replay", "other", "--json")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "other" in unknown.stderr


@on_sqlite
def test_what_was_removed(calls: Calls, database_url: str) -> None:
    reports = printed(database_url, "prune-reports", "--older-than=3", "--dry-run")
    assert datetime.fromisoformat(reports.pop("before")).utcoffset() == timedelta(0)
    assert reports == {"trials": 0, "reports": 0, "dry_run": True}
    entries = printed(database_url, "prune-audit", "--older-than=3")
    assert datetime.fromisoformat(entries.pop("before")).utcoffset() == timedelta(0)
    assert entries == {"entries": 0, "dry_run": False}


@on_sqlite
def test_a_token_and_a_user(database_url: str) -> None:
    new = printed(database_url, "token", "create", "--label=ci", "--prefix=team")
    assert new.pop("token").startswith("bso_")
    assert new == {"label": "ci", "scope": "run", "job_id_prefix": "team"}
    assert printed(database_url, "token", "revoke", "--label=ci") == {"label": "ci"}
    password = "correct horse battery\n" * 2
    created = printed(database_url, "user", "create", "ada", "--role=admin", typed=password)
    assert [created] == printed(database_url, "user", "list")
    changed = printed(database_url, "user", "change", "ada", "--role=viewer")
    assert [changed] == printed(database_url, "user", "list")
    assert changed["role"] == "viewer"
