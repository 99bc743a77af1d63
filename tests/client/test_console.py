"""`lightning-bso ping`, `jobs` and `show`: what people are told of a server and its jobs."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lightning_bso import BsoClient
from lightning_bso import cli as cli_module
from lightning_bso.cli import main
from lightning_bso.wire import TrialRequest
from tests.client.jobs import registered, report_request
from tests.client.scripted import Reply, Request, ScriptedServer, handed_on, in_turn
from tests.databases import free_port
from tests.servers import WaitressServer, backend

Output = pytest.CaptureFixture[str]


@pytest.fixture
def job_id(client: BsoClient) -> str:
    """A job with two runs that converged, one between them that did not, one that broke, and one under way."""
    name = f"digits-{uuid4().hex}"
    client.register(registered(job_id=name, job_id_prefix="digits", max_epochs=4, num_pruning_rounds=1))
    for run, metric in enumerate((1.0, 0.5, 1.0)):
        trial = client.ask(name, f"run-{run}")
        client.report(report_request(trial, time=2.0, energy=30.0, metric=metric, current_epoch=4))
    broken = client.ask(name, "run-3")
    client.end(
        TrialRequest(
            job_id=name,
            batch_size=broken.batch_size,
            trial_number=broken.trial_number,
            reason="ValueError: \x1b[31mred\nand a second line",
        )
    )
    client.ask(name, "run-4")
    return name


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[tuple[WaitressServer, dict[str, str]]]:
    """A server that asks who calls, and a token of each scope."""
    database = f"sqlite:///{tmp_path / 'bso.db'}"
    with WaitressServer(database, tmp_path) as running:
        tokens = {}
        for scope in ("read", "run"):
            options = ("--label", scope, "--scope", scope, "--database-url", database)
            tokens[scope] = backend("token", "create", *options, folder=tmp_path).stdout.split()[0]
        yield running, tokens


def test_a_server_that_is_ready_answers_a_ping(server: WaitressServer, capsys: Output) -> None:
    assert main(["ping", "--server-url", server.url]) == 0
    at, database, token = capsys.readouterr().out.splitlines()
    assert at.startswith("ok")
    assert f"{server.url} answers: lightning-bso 0." in at
    assert "ms" in database
    assert "none is needed" in token


def test_a_server_that_is_not_there_does_not_answer_a_ping(capsys: Output) -> None:
    assert main(["ping", "--server-url", f"http://127.0.0.1:{free_port()}"]) == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("problem  server")
    assert "is the server running" in said


def test_a_ping_of_something_else_says_so(scripted: ScriptedServer, capsys: Output) -> None:
    assert main(["ping", "--server-url", scripted.url]) == 1
    assert "is that the address of a batch-size-optimizer server?" in capsys.readouterr().out


def test_a_ping_of_what_is_no_address_says_what_one_looks_like(capsys: Output) -> None:
    assert main(["ping", "--server-url", "bso.example"]) == 1
    assert "http://host:8000" in capsys.readouterr().out
    assert main(["jobs", "--server-url", "bso.example"]) == 1
    assert "http://host:8000" in capsys.readouterr().err


def test_a_ping_tells_a_server_whose_database_is_away_from_one_that_is(
    server: WaitressServer, scripted: ScriptedServer, capsys: Output
) -> None:
    real = handed_on(server.url)

    def without_database(request: Request) -> Reply:
        return Reply(503, {"message": "the database is not available"}) if request.path == "/readyz" else real(request)

    scripted.script = without_database
    assert main(["ping", "--server-url", scripted.url]) == 1
    at, database = capsys.readouterr().out.splitlines()
    assert at.startswith("ok")
    assert database.startswith("problem  database")
    assert "the database is not available" in database
    assert "db check" in database


def test_a_ping_says_whether_the_token_lets_trainings_in(
    guarded: tuple[WaitressServer, dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    server, tokens = guarded
    expected = {
        None: (1, "needs an access token"),
        "wrong": (1, "unknown, expired or revoked"),
        tokens["read"]: (1, "the one sent has read"),
        tokens["run"]: (0, "accepted, and may train"),
    }
    for token, (status, words) in expected.items():
        given = [] if token is None else ["--token", token]
        assert main(["ping", "--server-url", server.url, *given]) == status
        assert words in capsys.readouterr().out.splitlines()[2]
    monkeypatch.setenv("ZEUS_BSO_TOKEN", tokens["run"])
    assert main(["ping", "--server-url", server.url]) == 0
    assert main(["jobs", "--server-url", server.url, "--token", "wrong"]) == 1
    assert main(["jobs", "--server-url", server.url, "--token", tokens["read"]]) == 0


def test_a_token_in_the_address_counts_and_is_not_shown(
    guarded: tuple[WaitressServer, dict[str, str]], capsys: Output
) -> None:
    server, tokens = guarded
    assert main(["ping", "--server-url", f"http://bso:{tokens['run']}@127.0.0.1:{server.port}"]) == 0
    said = capsys.readouterr().out
    assert "accepted" in said
    assert tokens["run"] not in said


def test_help_and_errors_show_no_token_of_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("ZEUS_BSO_TOKEN", "secret\n")
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "http://bso:secret@bso.example")
    for arguments in (["jobs", "--help"], ["jobs"]):
        with pytest.raises(SystemExit):
            main(arguments)
    said = capsys.readouterr()
    assert "it holds characters that no token has" in said.err
    assert "secret" not in said.out + said.err


def test_jobs_are_listed_one_a_line_newest_first(server: WaitressServer, client: BsoClient, capsys: Output) -> None:
    prefix = uuid4().hex
    for number in range(3):
        client.register(registered(job_id=f"{prefix}-{number}", job_id_prefix=prefix, policy="gp-ucb"))
    client.ask(f"{prefix}-1", "run")
    assert main(["jobs", "--prefix", prefix, "--server-url", server.url]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["JOB", "GPU", "POLICY", "TRIALS", "RUNNING", "CREATED", "(UTC)"]
    assert [line.split()[:5] for line in lines] == [
        [f"{prefix}-2", "A40", "gp-ucb", "0", "0"],
        [f"{prefix}-1", "A40", "gp-ucb", "1", "1"],
        [f"{prefix}-0", "A40", "gp-ucb", "0", "0"],
    ]


def test_jobs_of_all_pages_are_listed_or_as_many_as_wanted(
    server: WaitressServer, scripted: ScriptedServer, client: BsoClient, capsys: Output
) -> None:
    prefix = uuid4().hex
    for number in range(5):
        client.register(registered(job_id=f"{prefix}-{number}", job_id_prefix=prefix))
    real = handed_on(server.url)

    def in_small_pages(request: Request) -> Reply:
        return real(Request(request.method, request.path.replace("limit=1000", "limit=2"), {}, b""))

    scripted.script = in_small_pages
    for options, number in (([], 5), (["--limit", "3"], 3)):
        assert main(["jobs", "--json", "--prefix", prefix, "--server-url", scripted.url, *options]) == 0
        listed = [job["job_id"] for job in json.loads(capsys.readouterr().out)]
        assert listed == [f"{prefix}-{4 - index}" for index in range(number)]


def test_a_list_without_jobs_says_so(server: WaitressServer, scripted: ScriptedServer, capsys: Output) -> None:
    assert main(["jobs", "--server-url", scripted.url]) == 0
    assert main(["jobs", "--prefix", "nobody", "--server-url", server.url]) == 0
    assert capsys.readouterr().out == "There are no jobs yet.\nNo job's id begins with 'nobody'.\n"


def test_a_job_is_shown_with_its_batch_sizes_and_its_latest_trials(
    server: WaitressServer, job_id: str, capsys: Output
) -> None:
    assert main(["show", job_id, "--server-url", server.url]) == 0
    head, sizes, trials = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    facts = dict(line.split("  ", 1) for line in head)
    assert facts["job"].strip() == job_id
    assert facts["best so far"].strip() == "16"
    assert facts["machine"].strip() == "1 x A40, 100 W together"
    assert "at least 1 within 4 epochs" in facts["target"]
    assert [line.split()[:9] for line in sizes[1:]] == [
        ["8", "1", "0", "1", "0", "-", "-", "-", "-"],
        ["16", "1", "1", "0", "1", "30", "30", "2", "4"],
        ["32", "1", "1", "0", "0", "30", "30", "2", "4"],
    ]
    assert "did not converge" in sizes[1]
    assert [line.split()[0] for line in trials[1:]] == ["1", "2", "3", "4", "5"]
    assert [line.split()[1] for line in trials[1:4]] == ["16", "8", "32"]
    assert "metric 1 reached the target 1" in trials[1]
    assert "ValueError: ?[31mred and a second line" in trials[4]
    assert "running" in trials[5]


def test_a_job_of_which_nothing_is_known_yet_is_shown(
    server: WaitressServer, client: BsoClient, capsys: Output
) -> None:
    name = client.register(registered(beta_knob=None, higher_is_better_metric=False)).job_id or ""
    assert main(["show", name, "--server-url", server.url]) == 0
    shown = capsys.readouterr().out
    assert "none has converged yet" in shown
    assert "at most 1 within 10 epochs" in shown
    assert "no cost bound" in shown
    assert "TRIAL " not in shown


def test_as_json_a_job_and_its_latest_trials_are_whole(server: WaitressServer, job_id: str, capsys: Output) -> None:
    assert main(["show", job_id, "--json", "--trials", "2", "--server-url", server.url]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["job"]["spec"]["job_id"] == job_id
    assert [trial["trial_number"] for trial in shown["trials"]] == [4, 5]
    assert "\n" in shown["trials"][0]["outcome"]


def test_the_beginning_of_an_id_is_enough_if_no_other_begins_so(
    server: WaitressServer, client: BsoClient, job_id: str, capsys: Output
) -> None:
    assert main(["show", job_id[:20], "--server-url", server.url]) == 0
    assert job_id in capsys.readouterr().out
    assert main(["export", job_id[:20], "--server-url", server.url]) == 0
    assert job_id in capsys.readouterr().out
    client.register(registered(job_id=f"{job_id}-2", job_id_prefix="digits"))
    assert main(["show", job_id, "--server-url", server.url]) == 0
    capsys.readouterr()
    assert main(["show", job_id[:20], "--server-url", server.url]) == 1
    said = capsys.readouterr()
    assert said.err == f"lightning-bso: 2 jobs begin with {job_id[:20]!r}; give more of one: {job_id}-2, {job_id}\n"


def test_an_unknown_job_is_one_line_that_names_what_comes_close(
    server: WaitressServer, job_id: str, capsys: Output
) -> None:
    almost = job_id.replace("digits", "digit")
    for name, hint in ((almost, f"did you mean {job_id}"), ("nobody", "`lightning-bso jobs` lists them")):
        assert main(["show", name, "--server-url", server.url]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert f"no job is called {name!r}" in said
        assert hint in said


def test_a_server_that_fails_is_one_line(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    scripted.script = in_turn(Reply(500, {"message": "the server failed; its log says why"}))
    assert main(["show", "digits", "--server-url", scripted.url]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert "its log says why" in said


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
def test_a_number_that_cannot_be_is_refused(number: str, capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["jobs", "--limit", number])
    assert number in capsys.readouterr().err


def test_without_address_the_server_of_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(cli_module, "DEFAULT_SERVER_URL", nobody)
    assert main(["ping"]) == 1
    assert nobody in capsys.readouterr().out
