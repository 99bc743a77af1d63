"""What the pages name is there: commands and their options, targets of make, variables, files, and code that compiles.

Here the commands of all pages are read by their own parsers. `test_readme.py` runs those of the README and of the short
pages. Not read are commands of tools that are not this project's, and the SQL, which other tests run.
"""

import argparse
import ast
import importlib.util
import re
import shlex
import signal
import textwrap
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import click
import pytest

import lightning_bso
from backend import cli as server_cli
from backend.config import _SECRETS_DIR, CLIENT_VARIABLES, ENV_PREFIX, Settings
from lightning_bso import BsoClient, JobSpec
from lightning_bso.console import cli as client_cli
from tests import warm
from tests.servers import ROOT, Server, environment

PAGES = {
    file.name: file.read_text()
    for file in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
COMMAND = re.compile(r"(lightning-bso|python -m (?:backend|benchmarks\.\w+)|make) .*")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
VARIABLES = {
    *(ENV_PREFIX + name.upper() for name in Settings.model_fields),
    *CLIENT_VARIABLES,
    _SECRETS_DIR,
    *re.findall(r"^(\w+)=", (ROOT / "docker/.env.example").read_text(), re.MULTILINE),
}
JOB_FILE = "{job_id_prefix: digits, batch_sizes: [32, 64], default_batch_size: 32, target_metric: 0.9, max_epochs: 9}"
STOCK_CLI = """
from lightning.pytorch.cli import LightningCLI
from lightning_digits import Classifier, Digits
LightningCLI(Classifier, Digits, save_config_kwargs={"overwrite": True})
"""
DEADLINE_S = 120


def code_lines(page: str) -> list[str]:
    """Return the lines of a page's blocks of shell commands, those with a fence and those that are indented."""
    text = PAGES[page].replace("\\\n", "")
    fenced = re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    without_fences = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    \S.*$", without_fences, re.MULTILINE)
    return [line.strip() for line in (*"\n".join(fenced).splitlines(), *indented)]


def blocks_of_python(page: str) -> list[str]:
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```", PAGES[page], re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in blocks]


WHOLE = [(page, line.partition(" #")[0]) for page in PAGES for line in code_lines(page) if COMMAND.match(line)]
"""Commands as they are typed."""
MENTIONED = sorted(
    {
        (page, " ".join(span.split()))
        for page, text in PAGES.items()
        for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)
        if COMMAND.match(" ".join(span.split()))
    }
)
"""Commands within a sentence. They may lack arguments."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


@pytest.mark.parametrize(("page", "command"), WHOLE)
def test_a_command_is_one_that_its_program_understands(
    page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trials.csv").touch()
    first, *rest = shlex.split(re.sub(r"[\[\]]", "", command.partition(" > ")[0]))
    if first == "lightning-bso" and rest[0] not in ("serve", "server"):
        client_cli._parser().parse_args(rest)
    elif first == "lightning-bso" or rest[:2] == ["-m", "backend"]:
        found, arguments = server_command(rest[2:] if first == "python" else rest)
        assert not isinstance(found, click.Group)
        found.make_context(found.name, arguments)
    else:
        assert_known(command)


@pytest.mark.parametrize(("page", "command"), MENTIONED)
def test_a_command_within_a_sentence_exists_with_its_options(page: str, command: str) -> None:
    assert_known(command)


def test_every_variable_is_one_that_is_read() -> None:
    named = {(page, name) for page, text in PAGES.items() for name in re.findall(r"\b(?:ZEUS_)?BSO_[A-Z_0-9]+", text)}
    assert len(named) > len(VARIABLES) / 2
    assert {(page, name) for page, name in named if name.removesuffix("_FILE") not in VARIABLES} == set()


def test_every_database_url_that_is_exported_is_valid() -> None:
    exported = [line for page in PAGES for line in code_lines(page) if line.startswith("export ZEUS_BSO_DATABASE_URL=")]
    urls = [shlex.split(line)[1].partition("=")[2] for line in exported]
    assert {Settings(database_url=url).database.get_backend_name() for url in urls} == {"mysql", "postgresql"}


def test_every_file_that_is_named_is_there() -> None:
    named = {
        (page, path)
        for page, text in PAGES.items()
        for path in re.findall(r"\b(?:examples|tests|benchmarks|backend|lightning_bso|docker)/[\w./-]*\w", text)
    }
    of_the_user = {"docker/secrets", "docker/monitoring/token", "docker/proxy/certificates", "docker/.env"}
    missing = {(page, path) for page, path in named if not (ROOT / path).exists()}
    assert {(page, path) for page, path in missing if not path.startswith(tuple(of_the_user))} == set()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of_python(page)])
def test_python_compiles_and_imports_names_that_exist(page: str) -> None:
    for block in blocks_of_python(page):
        for statement in ast.walk(ast.parse(block)):
            if isinstance(statement, ast.ImportFrom) and statement.module == "lightning_bso":
                assert {name.name for name in statement.names} <= set(dir(lightning_bso))


def test_the_statements_that_every_recipe_begins_with_make_the_callback() -> None:
    names: dict[str, Any] = {}
    exec(blocks_of_python("libraries.md")[0], names)
    assert isinstance(names["job"], JobSpec)
    assert names["bso"].monitor == "val_loss"


def test_the_loop_of_your_own_trains(server: Server) -> None:
    (block,) = blocks_of_python("own-loop.md")
    accuracies = iter([0.5, 0.95])
    names: dict[str, Any] = {
        "make_loader": lambda batch_size: [batch_size],
        "train_one_epoch": lambda loader: None,
        "validate": lambda: next(accuracies),
    }
    exec(block.replace("http://127.0.0.1:8000", server.url), names)
    (job,) = BsoClient(server.url).list_jobs().jobs
    assert [trial.converged for trial in BsoClient(server.url).list_trials(job.job_id).trials] == [True]


@pytest.mark.parametrize("command", [line for line in code_lines("lightning-cli.md") if line.startswith("python ")])
def test_a_command_line_of_lightning_is_a_valid_configuration(command: str, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "job.yaml").write_text(JOB_FILE)
    (tmp_path / "train.py").write_text(STOCK_CLI)
    _, script, *arguments = shlex.split(command)
    (tmp_path / "lightning_digits.py").symlink_to(ROOT / "examples/lightning_digits.py")
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        process = warm.start(
            [str(tmp_path / script), *arguments, "--print_config"],
            cwd=tmp_path,
            env=environment(),
            stdout=output,
            stderr=errors,
            imports=warm.TRAINING_IMPORTS,
        )
        try:
            status = process.wait(DEADLINE_S)
        finally:
            process.send_signal(signal.SIGKILL)
        output.seek(0)
        errors.seek(0)
        assert status == 0, errors.read()
        assert "http://127.0.0.1:8000" in output.read()


def server_command(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the server's command that words begin with, and the other words."""
    command: click.Command = server_cli.main
    rest = words[1:] if words[:1] == ["server"] else words
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


def client_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the client's commands by their names. The parser of no command has the name ""."""
    parser = client_cli._parser()
    (commands,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return {"": parser, **commands}


def assert_known(command: str) -> None:
    """Check that a command exists, and that it has all the options that are named with it."""
    first, *rest = shlex.split(command.partition(" > ")[0])
    named = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if first == "make":
        targets = {word for word in takewhile(lambda word: not word.startswith("--"), rest) if "=" not in word}
        assert targets <= TARGETS
    elif first == "python" and rest[1].startswith("benchmarks."):
        module = importlib.util.find_spec(rest[1])
        assert module is not None
        assert module.origin is not None
        source = Path(module.origin).read_text()
        assert {option for option in named if f'"{option}"' not in source} == set()
    elif first == "lightning-bso" and rest[0] not in ("serve", "server"):
        name = next((word for word in rest if not (word.isupper() or word.startswith("-"))), "")
        assert named <= set(client_parsers()[name]._option_string_actions)
    else:
        found, words = server_command(rest[2:] if first == "python" else rest)
        assert not isinstance(found, click.Group) or not [word for word in words if not word.startswith("-")]
        assert named <= {"--help", "--version", *(option for each in found.params for option in each.opts)}
