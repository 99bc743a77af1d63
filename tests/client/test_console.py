"""The output of `lightning-bso ping`, `jobs` and `show`."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from lightning_bso import BsoClient
from lightning_bso.console import cli as cli_module
from lightning_bso.console.cli import main
from lightning_bso.wire import HeartbeatRequest, TrialRequest
from tests.client.jobs import registered, report_request
from tests.client.scripted import Reply, Request, ScriptedServer, handed_on, in_turn
from tests.databases import free_port
from tests.servers import Server, backend, environment

Output = pytest.CaptureFixture[str]
CONSOLE = (sys.executable, "-m", "lightning_bso.console.cli")


def on_a_terminal(command: list[str], columns: int) -> str:
    """Run a command on a terminal of that width, and return what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment())
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux's way of saying that the other side has closed
        pass
    os.close(ours)
    assert process.wait() == 0, shown
    return shown.decode()


@pytest.fixture
def job_id(client: BsoClient) -> str:
    """A job with two converged runs and a failed run between them, one run that broke, and one that is running."""
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
def guarded(tmp_path: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server that requires access tokens, and a token of each scope."""
    database = f"sqlite:///{tmp_path / 'bso.db'}"
    with Server(database, tmp_path) as running:
        tokens = {}
        for scope in ("read", "run"):
            options = ("--label", scope, "--scope", scope, "--database-url", database)
            tokens[scope] = backend("token", "create", *options, folder=tmp_path).stdout.split()[0]
        yield running, tokens


def test_a_server_that_is_ready_answers_a_ping(server: Server, capsys: Output) -> None:
    assert main(["ping", "--server-url", server.url]) == 0
    address, database, token = capsys.readouterr().out.splitlines()
    assert address.startswith("ok")
    assert f"{server.url} answers: lightning-bso 0." in address
    assert "ms" in database
    assert "none is required" in token


def test_a_server_that_is_not_there_does_not_answer_a_ping(capsys: Output) -> None:
    assert main(["ping", "--server-url", f"http://127.0.0.1:{free_port()}"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("problem  server")
    assert "is the server running" in line


def test_a_ping_of_something_else_says_so(scripted: ScriptedServer, capsys: Output) -> None:
    assert main(["ping", "--server-url", scripted.url]) == 1
    assert "is that the address of a batch-size-optimizer server?" in capsys.readouterr().out


def test_a_ping_of_what_is_no_address_says_what_one_looks_like(capsys: Output) -> None:
    assert main(["ping", "--server-url", "bso.example"]) == 1
    assert "http://host:8000" in capsys.readouterr().out
    assert main(["jobs", "--server-url", "bso.example"]) == 1
    assert "http://host:8000" in capsys.readouterr().err


def test_a_ping_reports_a_server_without_its_database(server: Server, scripted: ScriptedServer, capsys: Output) -> None:
    real = handed_on(server.url)

    def without_database(request: Request) -> Reply:
        return Reply(503, {"message": "the database is not available"}) if request.path == "/readyz" else real(request)

    scripted.script = without_database
    assert main(["ping", "--server-url", scripted.url]) == 1
    address, database = capsys.readouterr().out.splitlines()
    assert address.startswith("ok")
    assert database.startswith("problem  database")
    assert "the database is not available" in database
    assert "db check" in database


def test_a_ping_says_whether_the_token_lets_trainings_in(
    guarded: tuple[Server, dict[str, str]], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    server, tokens = guarded
    expected = {
        None: (1, "needs an access token"),
        "wrong": (1, "unknown, expired or revoked"),
        tokens["read"]: (1, "the token sent has scope read"),
        tokens["run"]: (0, "accepted; trainings may use it"),
    }
    for token, (status, text) in expected.items():
        options = [] if token is None else ["--token", token]
        assert main(["ping", "--server-url", server.url, *options]) == status
        assert text in capsys.readouterr().out.splitlines()[2]
    monkeypatch.setenv("ZEUS_BSO_TOKEN", tokens["run"])
    assert main(["ping", "--server-url", server.url]) == 0
    assert main(["jobs", "--server-url", server.url, "--token", "wrong"]) == 1
    assert main(["jobs", "--server-url", server.url, "--token", tokens["read"]]) == 0


def test_a_token_in_the_address_counts_and_is_not_shown(guarded: tuple[Server, dict[str, str]], capsys: Output) -> None:
    server, tokens = guarded
    assert main(["ping", "--server-url", f"http://bso:{tokens['run']}@127.0.0.1:{server.port}"]) == 0
    output = capsys.readouterr().out
    assert "accepted" in output
    assert tokens["run"] not in output


def test_help_and_errors_show_no_token_of_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("ZEUS_BSO_TOKEN", "secret\n")
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", "http://bso:secret@bso.example")
    for arguments in (["jobs", "--help"], ["jobs"]):
        with pytest.raises(SystemExit):
            main(arguments)
    output = capsys.readouterr()
    assert "it contains characters that are not allowed in a token" in output.err
    assert "secret" not in output.out + output.err


def test_jobs_are_listed_one_a_line_newest_first(server: Server, client: BsoClient, capsys: Output) -> None:
    prefix = uuid4().hex
    for number in range(3):
        client.register(registered(job_id=f"{prefix}-{number}", job_id_prefix=prefix, policy="gp-ucb"))
    client.ask(f"{prefix}-1", "run")
    today = f"{client.list_jobs(contains=prefix).jobs[1].last_seen_at:%Y-%m-%d}"
    assert main(["jobs", "--prefix", prefix, "--server-url", server.url]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert re.split("  +", head) == ["JOB", "GPU", "TRIALS", "RUNNING", "RECOMMENDED", "LAST SEEN (UTC)"]
    assert [line.split()[:6] for line in lines] == [
        [f"{prefix}-2", "A40", "0", "0", "-", "-"],
        [f"{prefix}-1", "A40", "1", "1", "-", today],
        [f"{prefix}-0", "A40", "0", "0", "-", "-"],
    ]


def test_on_a_terminal_of_80_columns_long_names_are_cut_in_the_middle(server: Server, client: BsoClient) -> None:
    job_id = f"{uuid4().hex}/vision/resnet50-on-imagenet-1"
    client.register(registered(job_id=job_id, job_id_prefix=job_id, gpu_model="NVIDIA A100-SXM4-80GB"))
    command = [*CONSOLE, "jobs", "--prefix", job_id[:32], "--server-url", server.url]
    lines = on_a_terminal(command, columns=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith(job_id[:7])
    assert job_id[-6:] in lines[1]
    assert "…" in lines[1]
    piped = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert f"{job_id}  NVIDIA A100-SXM4-80GB" in piped.stdout


def test_a_reader_that_leaves_early_ends_the_command_quietly(server: Server, client: BsoClient) -> None:
    prefix = uuid4().hex
    for number in range(3):
        client.register(registered(job_id=f"{prefix}-{number}", job_id_prefix=prefix))
    command = [*CONSOLE, "jobs", "--prefix", prefix, "--server-url", server.url]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment())
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


def test_what_ping_and_doctor_find_is_to_be_had_as_json(server: Server, capsys: Output) -> None:
    for command in ("ping", "doctor"):
        main([command, "--json", "--server-url", server.url])
        findings = json.loads(capsys.readouterr().out)
        assert {"ok"} <= {finding["level"] for finding in findings}
        assert all(finding["subject"] and finding["text"] for finding in findings)


def test_a_call_without_a_valid_token_names_the_variable(
    guarded: tuple[Server, dict[str, str]], capsys: Output
) -> None:
    assert main(["jobs", "--server-url", guarded[0].url, "--token", "wrong"]) == 1
    assert capsys.readouterr().err.endswith("(HTTP 401); set ZEUS_BSO_TOKEN to a valid token\n")


def test_jobs_of_all_pages_are_listed_or_as_many_as_wanted(
    server: Server, scripted: ScriptedServer, client: BsoClient, capsys: Output
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
        job_ids = [job["job_id"] for job in json.loads(capsys.readouterr().out)]
        assert job_ids == [f"{prefix}-{4 - index}" for index in range(number)]


def test_a_job_is_listed_with_its_lowest_mean(server: Server, job_id: str, capsys: Output) -> None:
    assert main(["jobs", "--prefix", job_id, "--server-url", server.url]) == 0
    _, line = capsys.readouterr().out.splitlines()
    assert line.split()[:5] == [job_id, "A40", "5", "1", "16"]


def test_the_server_picks_the_jobs_that_are_asked_for(
    server: Server, scripted: ScriptedServer, client: BsoClient, capsys: Output
) -> None:
    mark = uuid4().hex
    for name, policy, gpu in (("a", "zeus", "A40"), ("b", "gp-ucb", "A40"), ("c", "gp-ucb", "H100 PCIe")):
        job_id = f"{name}-{mark}"
        client.register(registered(job_id=job_id, job_id_prefix=job_id, policy=policy, gpu_model=gpu))
    scripted.script = handed_on(server.url)
    for options, names in (
        ([], "cba"),
        (["--policy", "gp-ucb"], "cb"),
        (["--gpu", "H100 PCIe"], "c"),
        (["--paused"], ""),
        (["--prefix", "b"], "b"),
    ):
        assert main(["jobs", "--json", "--contains", mark, "--server-url", scripted.url, *options]) == 0
        job_ids = [job["job_id"] for job in json.loads(capsys.readouterr().out)]
        assert job_ids == [f"{name}-{mark}" for name in names]
    assert all(f"contains={mark}" in request.path for request in scripted.requests)
    assert main(["jobs", "--contains", mark, "--paused", "--server-url", server.url]) == 0
    assert capsys.readouterr().out == "No job matches these filters.\n"


def test_no_more_jobs_are_fetched_than_are_wanted(
    server: Server, scripted: ScriptedServer, job_id: str, capsys: Output
) -> None:
    scripted.script = handed_on(server.url)
    assert main(["jobs", "--limit", "1", "--server-url", scripted.url]) == 0
    (request,) = scripted.requests
    assert "limit=1&" in f"{request.path}&"
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_id_that_no_job_can_have_is_refused(capsys: Output) -> None:
    for invalid in ("x" * 256, "a\tb"):
        with pytest.raises(SystemExit):
            main(["jobs", "--contains", invalid])
        assert "argument --contains: not a valid value: " in capsys.readouterr().err


def test_a_list_without_jobs_says_so(server: Server, scripted: ScriptedServer, capsys: Output) -> None:
    assert main(["jobs", "--server-url", scripted.url]) == 0
    assert main(["jobs", "--prefix", "nobody", "--server-url", server.url]) == 0
    assert capsys.readouterr().out == "There are no jobs yet.\nNo job id starts with 'nobody'.\n"


def test_a_job_is_shown_with_its_batch_sizes_and_its_latest_trials(server: Server, job_id: str, capsys: Output) -> None:
    assert main(["show", job_id, "--server-url", server.url]) == 0
    head, sizes, trials = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    facts = dict(line.split("  ", 1) for line in head)
    assert facts["job"].strip() == job_id
    assert facts["best so far"].strip() == "recommended: 16, cost 30.0 J in one run"
    assert facts["machine"].strip() == "1 x A40, 100 W in total"
    assert "at least 1 within 4 epochs" in facts["target"]
    assert (
        facts["saved"].strip() == "cost -30.0 J, energy -30.0 J, time -2 s, compared with always using the default 16"
    )
    assert [line.split()[:10] for line in sizes[1:]] == [
        ["8", "1", "0", "1", "0", "0", "-", "-", "-", "-"],
        ["16", "1", "1", "0", "0", "1", "30", "30", "2", "4"],
        ["32", "1", "1", "0", "0", "0", "30", "30", "2", "4"],
    ]
    assert "did not converge" in sizes[1]
    assert [line.split()[0] for line in trials[1:]] == ["1", "2", "3", "4", "5"]
    assert [line.split()[1] for line in trials[1:4]] == ["16", "8", "32"]
    assert "metric 1 reached the target 1" in trials[1]
    assert "ValueError: ?[31mred and a second line" in trials[4]
    assert "running" in trials[5]


def test_a_long_reason_is_cut_on_a_terminal_and_whole_for_a_program(server: Server, client: BsoClient) -> None:
    name = client.register(registered()).job_id or ""
    trial = client.ask(name, "run")
    reason = f"ValueError: {'too long ' * 50}to show"
    number, size = trial.trial_number, trial.batch_size
    client.end(TrialRequest(job_id=name, batch_size=size, trial_number=number, reason=reason))
    command = [*CONSOLE, "show", name, "--server-url", server.url]
    piped = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert reason in piped.stdout
    shown = on_a_terminal(command, columns=80)
    assert reason not in shown
    assert "too long too …" in shown


def test_a_job_whose_last_runs_ended_without_a_verdict_is_shown_with_the_last_error(
    server: Server, client: BsoClient, capsys: Output
) -> None:
    name = client.register(registered()).job_id or ""
    for run in range(3):
        trial = client.ask(name, f"run-{run}")
        size, number, reason = trial.batch_size, trial.trial_number, f"ValueError: \x1b[31m{run}"
        client.end(TrialRequest(job_id=name, batch_size=size, trial_number=number, reason=reason, current_epoch=1))
    assert main(["show", name, "--server-url", server.url]) == 0
    facts = dict(line.split("  ", 1) for line in capsys.readouterr().out.split("\n\n")[0].splitlines())
    words = "the last 3 runs ended without a verdict, the latest with: ValueError: ?[31m2"
    assert facts["attention"].strip() == words


def test_a_job_is_shown_with_what_its_policy_expects_and_would_do_next(
    server: Server, client: BsoClient, capsys: Output
) -> None:
    name = client.register(registered(policy="gp-ucb")).job_id or ""
    for run in range(3):
        trial = client.ask(name, f"run-{run}")
        client.report(report_request(trial, energy=5000.0 + run, metric=1.0))
    belief = client.get_belief(name)
    assert main(["show", name, "--server-url", server.url]) == 0
    head, sizes, _ = capsys.readouterr().out.split("\n\n")
    assert f"next run     batch size {belief.next_batch_size}: {belief.next_reason}" in head
    rows = [line.split() for line in sizes.splitlines()[1:]]
    assert [row[11:13] for row in rows] == [
        [f"{size.expected_cost:.0f}", f"{size.standard_deviation:.4g}"] for size in belief.batch_sizes
    ]


def test_a_job_without_a_batch_size_left_says_what_to_do(server: Server, client: BsoClient, capsys: Output) -> None:
    name = client.register(registered(batch_sizes=[16])).job_id or ""
    client.report(report_request(client.ask(name, "run"), metric=None))
    assert main(["show", name, "--server-url", server.url]) == 0
    assert re.search("next run +none: .*reset this job", capsys.readouterr().out)


def test_a_job_is_shown_with_how_much_a_device_takes_at_a_time(
    server: Server, client: BsoClient, capsys: Output
) -> None:
    name = client.register(registered()).job_id or ""
    trial = client.ask(name, "run")
    for limit, lines in ((None, 0), (8, 1)):
        client.heartbeat(HeartbeatRequest(job_id=name, trial_number=trial.trial_number, max_device_batch_size=limit))
        assert main(["show", name, "--server-url", server.url]) == 0
        output = capsys.readouterr().out
        shown = re.findall("memory +a device takes at most 8 at a time, .*; a reset of the job", output)
        assert len(shown) == lines


def test_a_job_without_results_is_shown(server: Server, client: BsoClient, capsys: Output) -> None:
    name = client.register(registered(beta_knob=None, higher_is_better_metric=False)).job_id or ""
    assert main(["show", name, "--server-url", server.url]) == 0
    output = capsys.readouterr().out
    assert "no batch size has converged yet" in output
    assert "at most 1 within 10 epochs" in output
    assert "no cost bound" in output
    assert "next run     batch size 16: " in output
    assert "unknown, because the default batch size 16 has not converged yet" in output
    assert "TRIAL " not in output


def test_the_json_of_a_job_is_complete(server: Server, job_id: str, capsys: Output) -> None:
    assert main(["show", job_id, "--json", "--trials", "2", "--server-url", server.url]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["job"]["spec"]["job_id"] == job_id
    assert [trial["trial_number"] for trial in content["trials"]] == [4, 5]
    assert [size["batch_size"] for size in content["belief"]["batch_sizes"]] == [8, 16, 32]
    assert content["savings"]["against_default"] == {"energy": -30.0, "time": -2.0, "cost": -30.0}
    assert "\n" in content["trials"][0]["outcome"]


def test_the_beginning_of_an_id_is_enough_if_no_other_begins_so(
    server: Server, client: BsoClient, job_id: str, capsys: Output
) -> None:
    assert main(["show", job_id[:20], "--server-url", server.url]) == 0
    assert job_id in capsys.readouterr().out
    assert main(["export", job_id[:20], "--server-url", server.url]) == 0
    assert job_id in capsys.readouterr().out
    client.register(registered(job_id=f"{job_id}-2", job_id_prefix="digits"))
    assert main(["show", job_id, "--server-url", server.url]) == 0
    capsys.readouterr()
    assert main(["show", job_id[:20], "--server-url", server.url]) == 1
    message = f"2 job ids start with {job_id[:20]!r}; give a longer part of the id: {job_id}-2, {job_id}"
    assert capsys.readouterr().err == f"lightning-bso: {message}\n"


def test_an_unknown_job_is_one_line_that_names_what_comes_close(server: Server, job_id: str, capsys: Output) -> None:
    misspelled = job_id.replace("digits", "digit")
    for name, hint in ((misspelled, f"did you mean {job_id}"), ("nobody", "`lightning-bso jobs` lists all jobs")):
        assert main(["show", name, "--server-url", server.url]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"no job has the id {name!r}" in line
        assert hint in line


def test_a_server_that_fails_is_one_line(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    scripted.script = in_turn(Reply(500, {"message": "the server failed; its log says why"}))
    assert main(["show", "digits", "--server-url", scripted.url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "its log says why" in line


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
def test_a_number_that_cannot_be_is_refused(number: str, capsys: Output) -> None:
    with pytest.raises(SystemExit):
        main(["jobs", "--limit", number])
    assert number in capsys.readouterr().err


def test_without_address_the_server_of_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr(cli_module, "DEFAULT_SERVER_URL", url)
    assert main(["ping"]) == 1
    assert url in capsys.readouterr().out
