"""Runs side by side under one name of a scheduler, and runs that the scheduler launches again: who gets which trial."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient, process
from lightning_bso.ranks import Ranks
from lightning_bso.wire import AskAnswer, TrialRecord
from tests.client.jobs import ScriptedMonitor, number_of_trials, only_trial, registered, start_run, warnings
from tests.client.run import run_process
from tests.client.scripted import Reply, Request, ScriptedServer, handed_on
from tests.databases import let_time_pass
from tests.servers import Server

NAME = "slurm-17"
LEASE_S = 3600.0


@pytest.fixture(autouse=True)
def slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Slurm job, which the scheduler has not restarted. Processes that a test starts belong to it."""
    for name in ("SLURM_STEP_ID", "SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "17")


@pytest.fixture
def fields() -> dict[str, Any]:
    """A job with a job_id."""
    return registered().model_dump()


def trials(client: BsoClient, fields: dict[str, Any]) -> list[TrialRecord]:
    """Return all trials of a job."""
    return client.list_trials(fields["job_id"]).trials


def wait_for_report(client: BsoClient, fields: dict[str, Any], trial_number: int) -> None:
    """Wait until a trial has a report."""
    while trials(client, fields)[trial_number - 1].current_epoch == 0:
        pass


def held_elsewhere(client: BsoClient, fields: dict[str, Any], restarts: str = "0.0") -> AskAnswer:
    """Let a process of another machine take the first trial."""
    client.register(registered(**fields))
    return client.ask(fields["job_id"], NAME, process=f"another-boot/1/1/1/{restarts}")


def test_two_runs_side_by_side_get_a_trial_and_a_verdict_each(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    with run_process(server.url, fields, 0.1, 1.0) as first:
        assert first.trial == 1
        with run_process(server.url, fields, 0.1, 0.2, 1.0) as second:
            assert second.trial == 2
            for run in (first, second, first, second, second):
                run.report()
            assert (first.verdict, second.verdict) == ("converged", "converged")
    assert [(trial.run_id, trial.energy) for trial in trials(client, fields)] == [(NAME, 20.0), (f"{NAME}-2", 30.0)]


def test_runs_that_start_at_the_same_time_get_a_trial_each(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    with (
        run_process(server.url, fields, 1.0) as first,
        run_process(server.url, fields, 1.0) as second,
        run_process(server.url, fields, 1.0) as third,
    ):
        runs = (first, second, third)
        assert sorted(run.trial for run in runs) == [1, 2, 3]
        for run in runs:
            run.report()
            assert run.verdict == "converged"
    assert [trial.run_id for trial in trials(client, fields)] == [NAME, f"{NAME}-2", f"{NAME}-3"]


def test_a_killed_run_that_is_launched_again_gets_its_trial_although_others_run_beside_it(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    with run_process(server.url, fields, 0.1, 1.0) as other:
        assert other.trial == 1
        with run_process(server.url, fields, 0.1, 0.1) as killed:
            assert killed.trial == 2
            killed.report()
            wait_for_report(client, fields, 2)
        with run_process(server.url, fields, 1.0) as relaunched:
            assert relaunched.trial == 2
            relaunched.report()
            assert relaunched.verdict == "converged"
    assert [(trial.run_id, trial.energy) for trial in trials(client, fields)] == [(NAME, 0.0), (f"{NAME}-2", 20.0)]


def test_a_killed_run_that_its_parent_has_not_noticed_yet_is_not_live(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    client.register(registered(**fields))
    boot, namespace, *_ = str(process.this_process()).split("/")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as zombie:
        name = f"{boot}/{namespace}/{zombie.pid}/{process._start(str(zombie.pid))}/0.0"
        client.ask(fields["job_id"], NAME, process=name)
        assert start_run(server.url, job=fields).run_id == f"{NAME}-2"
        zombie.kill()
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert start_run(server.url, job=fields).run_id == NAME


def test_a_run_that_lives_keeps_its_trial_although_its_lease_has_expired(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    with run_process(server.url, fields, 1.0) as silent:
        assert silent.trial == 1
        let_time_pass(server.database_url, fields["job_id"], 1, LEASE_S + 1)
        assert start_run(server.url, job=fields).run_id == f"{NAME}-2"
        silent.report()
        assert silent.verdict == "converged"


def test_asking_for_the_trial_of_another_process_does_not_renew_its_lease(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    held_elsewhere(client, fields)
    before = trials(client, fields)[0].last_seen_at
    assert start_run(server.url, job=fields).run_id == f"{NAME}-2"
    assert trials(client, fields)[0].last_seen_at == before


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_run_that_is_restarted_on_another_machine_gets_its_trial(
    variable: str, server: Server, client: BsoClient, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held_elsewhere(client, fields)
    monkeypatch.setenv(variable, "1")
    bso = start_run(server.url, job=fields)
    assert (bso.run_id, bso.trial) == (NAME, before)


def test_of_two_machines_the_trial_stays_with_the_first_until_its_lease_expires(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    held_elsewhere(client, fields)
    with run_process(server.url, fields) as beside:
        assert beside.trial == 2
    let_time_pass(server.database_url, fields["job_id"], 1, LEASE_S + 1)
    with run_process(server.url, fields) as later:
        assert later.trial == 1


def test_a_run_that_the_scheduler_has_restarted_keeps_its_trial_before_a_run_of_an_earlier_start(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    held_elsewhere(client, fields, restarts="1.0")
    assert start_run(server.url, job=fields).run_id == f"{NAME}-2"


def test_a_process_whose_name_nobody_can_read_counts_as_live_as_long_as_its_lease(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    client.register(registered(**fields))
    client.ask(fields["job_id"], NAME, process="worker 7")
    assert start_run(server.url, job=fields).run_id == f"{NAME}-2"


def test_a_run_in_another_container_of_the_machine_counts_as_one_on_another_machine(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    client.register(registered(**fields))
    boot, _, pid, _, _ = str(process.this_process()).split("/")
    client.ask(fields["job_id"], NAME, process=f"{boot}/1/{pid}/1/0.0")
    assert start_run(server.url, job=fields).run_id == f"{NAME}-2"


def test_a_pid_that_is_used_again_is_another_process(server: Server, client: BsoClient, fields: dict[str, Any]) -> None:
    client.register(registered(**fields))
    boot, namespace, pid, _, _ = str(process.this_process()).split("/")
    client.ask(fields["job_id"], NAME, process=f"{boot}/{namespace}/{pid}/1/0.0")
    assert start_run(server.url, job=fields).run_id == NAME


def test_a_run_with_a_name_of_the_users_takes_the_trial_from_another_process(
    server: Server, fields: dict[str, Any]
) -> None:
    with run_process(server.url, fields, 1.0, RUN_ID="mine") as first:
        assert first.trial == 1
        bso = start_run(server.url, job=fields, run_id="mine")
        assert bso.trial is not None
        assert bso.trial.trial_number == 1


def test_a_run_whose_take_over_got_no_answer_gets_the_trial(
    server: Server, client: BsoClient, scripted: ScriptedServer, fields: dict[str, Any]
) -> None:
    with run_process(server.url, fields) as ended:
        assert ended.trial == 1
    lost: list[Request] = []

    def lose_first_take_over(request: Request) -> Reply:
        answer = handed_on(server.url)(request)
        if lost or request.path != "/trials" or request.body["takes_over"] is None:
            return answer
        lost.append(request)
        return Reply(503)

    scripted.script = lose_first_take_over
    assert start_run(scripted.url, job=fields).run_id == NAME
    assert len(lost) == 1
    assert len(trials(client, fields)) == 1


def test_a_new_run_asks_once(server: Server, scripted: ScriptedServer, fields: dict[str, Any]) -> None:
    scripted.script = handed_on(server.url)
    start_run(scripted.url, job=fields)
    assert [request.path for request in scripted.requests] == ["/jobs", "/trials"]


def test_where_processes_have_no_names_a_scheduler_s_name_leads_to_the_trial(
    server: Server, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with run_process(server.url, fields) as first:
        assert first.trial == 1
        monkeypatch.setattr(process, "_PROC", tmp_path)  # as on a system that is not Linux
        assert start_run(server.url, job=fields).run_id == NAME


def test_a_refused_report_does_not_end_the_trial_that_another_process_reports_to(
    server: Server, client: BsoClient, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    outdated = start_run(server.url, ScriptedMonitor([1.0]), job=fields, run_id="run")
    with run_process(server.url, fields, 0.1, 1.0, RUN_ID="run") as running:
        assert running.trial == 1
        running.report()
        wait_for_report(client, fields, 1)
        outdated.on_evaluate(0.5)
        assert outdated.trial is None
        assert len(warnings(caplog, "the server refused a report")) == 1
        assert trials(client, fields)[0].status == "Dispatched"
        running.report()
        assert running.verdict == "converged"


def test_an_error_of_an_outdated_attempt_does_not_end_the_trial_of_the_process_that_asked_since(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    outdated = start_run(server.url, job=fields, run_id="run")
    with run_process(server.url, fields, 1.0, RUN_ID="run") as running:
        assert running.trial == 1
        outdated.abandon(RuntimeError("NCCL timeout"))
        assert trials(client, fields)[0].status == "Dispatched"
        running.report()
        assert running.verdict == "converged"


class First(Ranks):
    """The first of two ranks. It records what it gathers."""

    size = 2

    def __init__(self) -> None:
        self.gathered: list[Any] = []

    def gather(self, value: Any) -> list[Any]:
        self.gathered.append(value)
        return [value, value]


class Second(Ranks):
    """The second of two ranks, after the first one."""

    rank, size, local_rank = 1, 2, 1

    def __init__(self, first: First) -> None:
        self._of_first = iter(first.gathered)

    def gather(self, value: Any) -> list[Any]:
        return [next(self._of_first), value]


def test_an_error_of_an_outdated_rank_does_not_end_the_trial_of_the_process_that_asked_since(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    first = First()
    start_run(server.url, job=fields, run_id="run", ranks=first)
    outdated = start_run(server.url, job=fields, run_id="run", ranks=Second(first))
    with run_process(server.url, fields, RUN_ID="run") as running:
        assert running.trial == 1
        outdated.abandon(RuntimeError("NCCL timeout"))
        assert trials(client, fields)[0].status == "Dispatched"


def test_a_refused_report_does_not_end_the_trial_of_a_run_that_resumed_in_the_same_process(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    outdated = start_run(server.url, ScriptedMonitor([10.0, 5.0]), job=fields, run_id="run")
    outdated.on_evaluate(0.1)
    resumed = start_run(server.url, job=fields, run_id="run")
    resumed.on_evaluate(0.2)
    outdated.on_evaluate(0.2)
    assert outdated.trial is None
    resumed.on_evaluate(1.0)
    assert only_trial(client, fields["job_id_prefix"]).converged


def test_a_refused_report_ends_the_trial_that_no_other_process_reports_to(
    server: Server, client: BsoClient, fields: dict[str, Any]
) -> None:
    start_run(server.url, job=fields, run_id="estimated").on_evaluate(1.0)
    bso = BatchSizeOptimizer(ScriptedMonitor(), server.url, fields, run_id="measured")
    bso.get_batch_size()
    bso._machine = bso._machine and type(bso._machine)("nvml", "A40", 1, 100.0)
    bso.on_train_begin()
    bso.on_evaluate(0.5)
    assert trials(client, fields)[1].outcome_code == "left"
    assert number_of_trials(client, fields["job_id_prefix"]) == 2
