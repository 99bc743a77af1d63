"""No failure of the server or the network ends a training, and no measurement is lost."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lightning_bso import BatchSizeOptimizer, BsoClient, ServerUnreachable, ZeusBSOTrainFailError, transport
from lightning_bso import outbox as outbox_module
from tests.client.jobs import ScriptedMonitor, job, only_trial, start_run, warnings
from tests.client.scripted import Reply, Request, ScriptedServer, handed_on, in_turn
from tests.databases import connected, free_port
from tests.servers import Server


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[Server]:
    """A server of this test alone, which the test may kill."""
    with Server(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


def stored_reports(server: Server) -> list[tuple[int, int, float]]:
    """Return the number, epoch and energy of every stored report, in the order of arrival."""
    with connected(server.database_url) as connection:
        rows = connection.exec_driver_sql("SELECT number, epoch, energy_j FROM reports ORDER BY revision")
        return [(number, epoch, energy) for number, epoch, energy in rows]


def test_reports_missed_by_a_killed_server_are_resent_in_order(
    killable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fields = job()
    bso = start_run(killable.url, ScriptedMonitor([1.0, 2.0, 3.0, 4.0]), job=fields)
    bso.on_evaluate(0.1)
    killable.kill()
    bso.on_evaluate(0.2)
    bso.on_evaluate(0.3)
    assert not bso.training_finished
    assert len(warnings(caplog, "Training continues")) == 1
    killable.start()
    bso.on_evaluate(1.0)
    assert bso.training_finished
    assert bso.result is not None
    assert bso.result.converged
    assert len(warnings(caplog, "reachable again")) == 1
    assert stored_reports(killable) == [(1, 1, 1.0), (2, 2, 3.0), (3, 3, 6.0), (4, 4, 10.0)]


def test_a_verdict_on_a_resent_report_ends_the_run(killable: Server) -> None:
    bso = start_run(killable.url)
    killable.kill()
    bso.on_evaluate(1.0)
    assert not bso.training_finished
    killable.start()
    bso.on_evaluate(0.5)
    assert bso.result is not None
    assert bso.result.converged
    assert [number for number, *_ in stored_reports(killable)] == [1]


def test_reports_missed_at_the_end_are_resent_when_the_run_is_ended(killable: Server) -> None:
    fields = job()
    bso = start_run(killable.url, job=fields)
    killable.kill()
    bso.on_evaluate(0.5)
    killable.start()
    bso.end("no data left")
    stored = only_trial(BsoClient(killable.url), fields["job_id_prefix"])
    assert (stored.energy, stored.status, stored.outcome) == (10.0, "Failed", "no data left")


def test_leaving_a_run_whose_missed_reports_are_refused_raises_nothing_of_its_own(
    server: Server, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    def delete_job_in_an_outage(bso: BatchSizeOptimizer) -> None:
        assert bso.trial is not None
        scripted.script = lambda _request: Reply(503)
        bso.on_evaluate(0.5)
        answer = requests.delete(f"{server.url}/jobs", params={"job_id": bso.trial.job_id}, timeout=30)
        assert answer.status_code == 200
        scripted.script = handed_on(server.url)

    scripted.script = handed_on(server.url)
    with start_run(scripted.url) as left:
        delete_job_in_an_outage(left)
    with pytest.raises(OSError, match="the disk is full"), start_run(scripted.url) as broken:
        delete_job_in_an_outage(broken)
        raise OSError("the disk is full")
    assert left.trial is broken.trial is None
    assert len(warnings(caplog, "the server refused a report")) == 2


def test_ending_a_run_without_a_server_is_logged_and_does_not_raise(
    killable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bso = start_run(killable.url)
    killable.kill()
    bso.end("no data left")
    assert len(warnings(caplog, "Trial 1 stays open")) == 1


def test_a_restart_between_two_evaluations_goes_unnoticed(killable: Server, caplog: pytest.LogCaptureFixture) -> None:
    bso = start_run(killable.url)
    bso.on_evaluate(0.1)
    caplog.clear()
    killable.kill()
    killable.start()
    bso.on_evaluate(0.2)
    assert warnings(caplog, "") == []
    assert len(stored_reports(killable)) == 2


def test_a_failed_verdict_that_comes_as_the_run_is_left_is_raised(killable: Server) -> None:
    with (
        pytest.raises(ZeusBSOTrainFailError, match="within 2 epochs"),
        start_run(killable.url, job=job(max_epochs=2)) as bso,
    ):
        bso.on_evaluate(0.5)
        killable.kill()
        bso.on_evaluate(0.5)
        killable.start()


def test_an_outage_is_logged_once(killable: Server, caplog: pytest.LogCaptureFixture) -> None:
    bso = start_run(killable.url)
    killable.kill()
    caplog.clear()
    for _ in range(3):
        bso.on_evaluate(0.1)
    assert len(warnings(caplog, "")) == 1, caplog.text


def test_the_log_of_an_outage_names_its_cause_and_not_the_error_that_was_being_handled(
    killable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bso = start_run(killable.url)
    killable.kill()
    try:
        raise MemoryError("in the training")
    except MemoryError as error:
        bso.end(f"{error}")
    (warning,) = warnings(caplog, "Trial 1 stays open")
    assert "refused" in warning
    assert "in the training" not in warning


def test_an_answer_that_is_lost_on_the_way_does_no_harm(server: Server, scripted: ScriptedServer) -> None:
    fields = job()
    scripted.script = handed_on(server.url)
    bso = start_run(scripted.url, job=fields)

    def lose_answers(request: Request) -> Reply:
        handed_on(server.url)(request)
        return Reply(502)

    scripted.script = lose_answers
    bso.on_evaluate(0.1)
    bso.on_evaluate(0.2)
    scripted.script = handed_on(server.url)
    bso.on_evaluate(0.3)
    stored = only_trial(BsoClient(server.url), fields["job_id_prefix"])
    assert (stored.current_epoch, stored.energy) == (3, 30.0)


def test_an_ask_whose_answer_is_lost_takes_one_trial(server: Server, scripted: ScriptedServer) -> None:
    fields = job()
    replies = iter([None, None, Reply(503), None])

    def lose_first_answer(request: Request) -> Reply:
        answer = handed_on(server.url)(request)
        return next(replies, None) or answer

    next(replies)
    scripted.script = lose_first_answer
    start_run(scripted.url, job=fields)
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).trial_number == 1
    assert [request.path for request in scripted.requests] == ["/jobs", "/trials", "/trials"]


def test_a_server_that_hangs_holds_an_evaluation_up_for_hardly_more_than_the_read_timeout(
    server: Server, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.8)
    scripted.script = handed_on(server.url)
    bso = start_run(scripted.url)
    scripted.script = scripted.hang
    for _ in range(3):  # with one, two and three reports to resend
        began = time.monotonic()
        bso.on_evaluate(0.5)
        assert time.monotonic() - began < 2 * 0.8


def test_resending_many_reports_holds_no_evaluation_up_for_much_longer_than_the_read_timeout(
    server: Server, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.8)
    fields = job(max_epochs=100)
    scripted.script = handed_on(server.url)
    bso = start_run(scripted.url, job=fields)
    scripted.script = in_turn(Reply(503))
    for _ in range(8):
        bso.on_evaluate(0.5)
    scripted.script = handed_on(server.url, lambda _request: scripted.release.wait(0.35))
    for epochs in range(9, 12):
        began = time.monotonic()
        bso.on_evaluate(0.5)
        assert time.monotonic() - began < 2 * 0.8
        reported = only_trial(BsoClient(server.url), fields["job_id_prefix"]).current_epoch
        assert 0 < reported < epochs
    bso.end("the script is over")  # sends all reports, without a time limit
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).current_epoch == 11


def test_a_meter_that_fails_while_the_server_hangs_does_not_hold_training_up_either(
    server: Server, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.8)
    scripted.script = handed_on(server.url)
    bso = start_run(scripted.url, ScriptedMonitor([]))  # has no reading
    scripted.script = scripted.hang
    began = time.monotonic()
    bso.on_evaluate(0.5)
    assert time.monotonic() - began < 2 * 0.8


def test_a_job_that_is_deleted_in_mid_run_ends_the_reporting_and_not_the_training(
    killable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    bso = start_run(killable.url)
    assert bso.trial is not None
    bso.on_evaluate(0.1)
    killable.calls.delete(bso.trial.job_id)
    for _ in range(3):
        bso.on_evaluate(0.5)
    assert not bso.training_finished
    assert bso.trial is None
    (warning,) = warnings(caplog, "Training continues")
    assert "without the batch-size optimizer" in warning


def test_a_run_of_a_deleted_job_leaves_the_trial_of_the_job_that_was_registered_again_alone(
    killable: Server, caplog: pytest.LogCaptureFixture
) -> None:
    fields = job(job_id="again", job_id_prefix="again")
    old = start_run(killable.url, job=fields)
    killable.calls.delete("again")
    new = start_run(killable.url, job=fields)
    assert old.trial is not None
    assert new.trial is not None
    assert old.trial.trial_number == new.trial.trial_number
    old.on_evaluate(1.0)
    old.end("over")
    assert not old.training_finished
    (warning,) = warnings(caplog, "Training continues")
    assert "deleted and registered again" in warning
    new.on_evaluate(1.0)
    assert new.training_finished
    assert only_trial(BsoClient(killable.url), "again").energy == 10.0


def test_without_a_server_a_run_does_not_begin() -> None:
    bso = BatchSizeOptimizer(ScriptedMonitor(), f"http://127.0.0.1:{free_port()}", job())
    with pytest.raises(ServerUnreachable, match="is the server running"):
        bso.get_batch_size()


def test_without_a_server_a_run_may_fall_back_to_the_default_unreported(caplog: pytest.LogCaptureFixture) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    bso = BatchSizeOptimizer(ScriptedMonitor(), url, job(), fallback_to_default=True)
    assert bso.get_batch_size() == 16
    assert bso.trial is None
    bso.on_train_begin()
    bso.on_evaluate(0.5)
    bso.end("over")
    assert len(warnings(caplog, "default batch size, unreported")) == 1


def test_a_server_that_refuses_the_job_is_no_reason_to_fall_back(scripted: ScriptedServer) -> None:
    scripted.script = in_turn(Reply(422, {"message": "max_power is missing"}))
    bso = BatchSizeOptimizer(ScriptedMonitor(), scripted.url, job(), fallback_to_default=True)
    with pytest.raises(Exception, match="max_power is missing"):
        bso.get_batch_size()


@pytest.mark.parametrize("cause", ["fallback", "deleted"])
def test_the_documentations_loop_ends_although_nothing_is_reported_any_more(killable: Server, cause: str) -> None:
    url = f"http://127.0.0.1:{free_port()}" if cause == "fallback" else killable.url
    bso = start_run(url, job=job(max_epochs=5), fallback_to_default=True)
    if bso.trial is not None:
        killable.calls.delete(bso.trial.job_id)
    epochs = 0
    while not bso.training_finished and epochs < 50:
        epochs += 1
        bso.on_evaluate(0.5)
    assert epochs < 50, "a loop around training_finished never ends"


def test_a_server_that_hangs_after_the_verdict_is_not_called_again_for_a_while_either(
    server: Server, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.8)
    monkeypatch.setattr(outbox_module, "LONG_WAIT_S", 0.1)
    scripted.script = handed_on(server.url)
    fields = job()
    bso = start_run(scripted.url, job=fields, stop=False)
    bso.on_evaluate(1.0)
    scripted.script = scripted.hang
    bso.on_evaluate(1.0)
    requests_before = len(scripted.requests)
    began = time.monotonic()
    bso.on_evaluate(1.0)
    assert time.monotonic() - began < 0.8
    assert len(scripted.requests) == requests_before
    scripted.script = handed_on(server.url)
    bso.end("the script is over")  # ignores the pause
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).energy_after == 30.0


def test_a_server_that_hangs_is_not_called_again_for_a_while(
    server: Server, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT_S", 0.8)
    monkeypatch.setattr(outbox_module, "LONG_WAIT_S", 0.1)
    scripted.script = handed_on(server.url)
    fields = job()
    bso = start_run(scripted.url, job=fields)
    scripted.script = scripted.hang
    bso.on_evaluate(0.1)
    requests_before = len(scripted.requests)
    began = time.monotonic()
    bso.on_evaluate(0.2)
    assert time.monotonic() - began < 0.8
    assert len(scripted.requests) == requests_before
    scripted.script = handed_on(server.url)
    bso.end("the script is over")  # ignores the pause
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).current_epoch == 2
