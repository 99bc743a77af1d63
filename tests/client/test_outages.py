"""Once a training runs, no failure of the server or the network ends it, and nothing measured is lost."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lightning_bso import BatchSizeOptimizer, BsoClient, ServerUnreachable, ZeusBSOTrainFailError
from lightning_bso import client as client_module
from lightning_bso import outbox as outbox_module
from tests.client.jobs import ScriptedMonitor, begun, job, only_trial, warnings
from tests.client.scripted import Reply, Request, ScriptedServer, handed_on, in_turn
from tests.databases import connected, free_port
from tests.servers import WaitressServer


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[WaitressServer]:
    """A server of this test's own, to be killed."""
    with WaitressServer(f"sqlite:///{tmp_path / 'bso.db'}", tmp_path) as running:
        yield running


def reports_on_record(server: WaitressServer) -> list[tuple[int, int, float]]:
    """Number, epoch and energy of every report that is stored, as they came in."""
    with connected(server.database_url) as connection:
        rows = connection.exec_driver_sql("SELECT number, epoch, energy_j FROM reports ORDER BY revision")
        return [(number, epoch, energy) for number, epoch, energy in rows]


def test_reports_missed_by_a_killed_server_are_made_up_for_in_order(
    mortal: WaitressServer, caplog: pytest.LogCaptureFixture
) -> None:
    fields = job()
    bso = begun(mortal.url, ScriptedMonitor([1.0, 2.0, 3.0, 4.0]), job=fields)
    bso.on_evaluate(0.1)
    mortal.kill()
    bso.on_evaluate(0.2)
    bso.on_evaluate(0.3)
    assert not bso.training_finished
    assert len(warnings(caplog, "Training goes on")) == 1
    mortal.start()
    bso.on_evaluate(1.0)
    assert bso.training_finished
    assert bso.result is not None
    assert bso.result.converged
    assert len(warnings(caplog, "answers again")) == 1
    assert reports_on_record(mortal) == [(1, 1, 1.0), (2, 2, 3.0), (3, 3, 6.0), (4, 4, 10.0)]


def test_a_verdict_on_a_report_that_was_made_up_for_ends_the_run(mortal: WaitressServer) -> None:
    bso = begun(mortal.url)
    mortal.kill()
    bso.on_evaluate(1.0)
    assert not bso.training_finished
    mortal.start()
    bso.on_evaluate(0.5)
    assert bso.result is not None
    assert bso.result.converged
    assert [number for number, *_ in reports_on_record(mortal)] == [1]


def test_reports_missed_at_the_end_are_made_up_for_when_the_run_is_ended(mortal: WaitressServer) -> None:
    fields = job()
    bso = begun(mortal.url, job=fields)
    mortal.kill()
    bso.on_evaluate(0.5)
    mortal.start()
    bso.end("no data left")
    stored = only_trial(BsoClient(mortal.url), fields["job_id_prefix"])
    assert (stored.energy, stored.status, stored.outcome) == (10.0, "Failed", "no data left")


def test_leaving_a_run_whose_missed_reports_are_refused_raises_nothing_of_its_own(
    server: WaitressServer, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    def run_of_deleted_job(bso: BatchSizeOptimizer) -> None:
        assert bso.trial is not None
        scripted.script = lambda _request: Reply(503)
        bso.on_evaluate(0.5)
        answer = requests.delete(f"{server.url}/jobs", params={"job_id": bso.trial.job_id}, timeout=30)
        assert answer.status_code == 200
        scripted.script = handed_on(server.url)

    scripted.script = handed_on(server.url)
    with begun(scripted.url) as left:
        run_of_deleted_job(left)
    with pytest.raises(OSError, match="the disk is full"), begun(scripted.url) as broken:
        run_of_deleted_job(broken)
        raise OSError("the disk is full")
    assert left.trial is broken.trial is None
    assert len(warnings(caplog, "the server refused a report")) == 2


def test_ending_a_run_without_a_server_is_said_and_does_not_raise(
    mortal: WaitressServer, caplog: pytest.LogCaptureFixture
) -> None:
    bso = begun(mortal.url)
    mortal.kill()
    bso.end("no data left")
    assert len(warnings(caplog, "Trial 1 is left open")) == 1


def test_a_restart_between_two_evaluations_goes_unnoticed(
    mortal: WaitressServer, caplog: pytest.LogCaptureFixture
) -> None:
    bso = begun(mortal.url)
    bso.on_evaluate(0.1)
    caplog.clear()
    mortal.kill()
    mortal.start()
    bso.on_evaluate(0.2)
    assert warnings(caplog, "") == []
    assert len(reports_on_record(mortal)) == 2


def test_a_failed_verdict_that_comes_as_the_run_is_left_is_raised(mortal: WaitressServer) -> None:
    with pytest.raises(ZeusBSOTrainFailError, match="within 2 epochs"), begun(mortal.url, job=job(max_epochs=2)) as bso:
        bso.on_evaluate(0.5)
        mortal.kill()
        bso.on_evaluate(0.5)
        mortal.start()


def test_an_outage_is_said_once_in_the_whole_log(mortal: WaitressServer, caplog: pytest.LogCaptureFixture) -> None:
    bso = begun(mortal.url)
    mortal.kill()
    caplog.clear()
    for _ in range(3):
        bso.on_evaluate(0.1)
    assert len(warnings(caplog, "")) == 1, caplog.text


def test_what_is_said_of_an_outage_names_its_cause_and_not_the_error_that_was_being_handled(
    mortal: WaitressServer, caplog: pytest.LogCaptureFixture
) -> None:
    bso = begun(mortal.url)
    mortal.kill()
    try:
        raise MemoryError("in the training")
    except MemoryError as error:
        bso.end(f"{error}")
    (said,) = warnings(caplog, "Trial 1 is left open")
    assert "refused" in said
    assert "in the training" not in said


def test_an_answer_that_is_lost_on_the_way_does_no_harm(server: WaitressServer, scripted: ScriptedServer) -> None:
    fields = job()
    scripted.script = handed_on(server.url)
    bso = begun(scripted.url, job=fields)

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


def test_an_ask_whose_answer_is_lost_takes_one_trial(server: WaitressServer, scripted: ScriptedServer) -> None:
    fields = job()
    replies = iter([None, None, Reply(503), None])

    def lose_first_answer(request: Request) -> Reply:
        answer = handed_on(server.url)(request)
        return next(replies, None) or answer

    next(replies)
    scripted.script = lose_first_answer
    begun(scripted.url, job=fields)
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).trial_number == 1
    assert [request.path for request in scripted.requests] == ["/jobs", "/trials", "/trials"]


def test_a_server_that_hangs_holds_an_evaluation_up_for_hardly_more_than_the_read_timeout(
    server: WaitressServer, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_S", 0.5)
    scripted.script = handed_on(server.url)
    bso = begun(scripted.url)
    scripted.script = scripted.hang
    for _ in range(3):  # with one, two and three reports to be made up for
        began = time.monotonic()
        bso.on_evaluate(0.5)
        assert time.monotonic() - began < 2 * 0.5


def test_making_up_for_many_reports_holds_no_evaluation_up_for_much_longer_than_the_read_timeout(
    server: WaitressServer, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_S", 0.5)
    fields = job(max_epochs=100)
    scripted.script = handed_on(server.url)
    bso = begun(scripted.url, job=fields)
    scripted.script = in_turn(Reply(503))
    for _ in range(8):
        bso.on_evaluate(0.5)
    scripted.script = handed_on(server.url, lambda _request: scripted.release.wait(0.2))
    for epochs in range(9, 12):
        began = time.monotonic()
        bso.on_evaluate(0.5)
        assert time.monotonic() - began < 2 * 0.5
        reported = only_trial(BsoClient(server.url), fields["job_id_prefix"]).current_epoch
        assert 0 < reported < epochs
    bso.end("the script is over")  # holds no training up any more, and brings the rest
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).current_epoch == 11


def test_a_meter_that_fails_while_the_server_hangs_does_not_hold_training_up_either(
    server: WaitressServer, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_S", 0.5)
    scripted.script = handed_on(server.url)
    bso = begun(scripted.url, ScriptedMonitor([]))  # has no reading to give
    scripted.script = scripted.hang
    began = time.monotonic()
    bso.on_evaluate(0.5)
    assert time.monotonic() - began < 2 * 0.5


def test_a_job_that_is_deleted_in_mid_run_ends_the_reporting_and_not_the_training(
    mortal: WaitressServer, caplog: pytest.LogCaptureFixture
) -> None:
    bso = begun(mortal.url)
    assert bso.trial is not None
    bso.on_evaluate(0.1)
    mortal.calls.delete(bso.trial.job_id)
    for _ in range(3):
        bso.on_evaluate(0.5)
    assert not bso.training_finished
    assert bso.trial is None
    (said,) = warnings(caplog, "Training goes on")
    assert "without the batch-size optimizer" in said


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


@pytest.mark.parametrize("how", ["fallback", "deleted"])
def test_the_documentations_loop_ends_although_nothing_is_reported_any_more(mortal: WaitressServer, how: str) -> None:
    url = f"http://127.0.0.1:{free_port()}" if how == "fallback" else mortal.url
    bso = begun(url, job=job(max_epochs=5), fallback_to_default=True)
    if bso.trial is not None:
        mortal.calls.delete(bso.trial.job_id)
    epochs = 0
    while not bso.training_finished and epochs < 50:
        epochs += 1
        bso.on_evaluate(0.5)
    assert epochs < 50, "a loop around training_finished goes on for ever"


def test_a_server_that_hangs_is_then_left_alone_for_a_while(
    server: WaitressServer, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(outbox_module, "LONG_WAIT_S", 0.1)
    scripted.script = handed_on(server.url)
    fields = job()
    bso = begun(scripted.url, job=fields)
    scripted.script = scripted.hang
    bso.on_evaluate(0.1)
    tried = len(scripted.requests)
    began = time.monotonic()
    bso.on_evaluate(0.2)
    assert time.monotonic() - began < 0.3
    assert len(scripted.requests) == tried
    scripted.script = handed_on(server.url)
    bso.end("the script is over")  # the last chance is taken
    assert only_trial(BsoClient(server.url), fields["job_id_prefix"]).current_epoch == 2
