"""Every call of the client against a real server: its answer, and its refusals."""

import pytest

from lightning_bso import BsoClient, ServerRefused
from lightning_bso.wire import MAX_PAGE, HeartbeatRequest, TrialRequest
from tests.client.jobs import registered, report_request, stored_trial


def test_registering_gives_the_spec_back_and_twice_changes_nothing(client: BsoClient) -> None:
    spec = registered()
    assert client.register(spec) == spec
    assert client.register(spec) == spec
    assert client.describe(spec.job_id or "").spec == spec


def test_registering_without_a_job_id_lets_the_server_make_one(client: BsoClient) -> None:
    spec = registered().model_copy(update={"job_id": None})
    answer = client.register(spec)
    assert answer.job_id is not None
    assert answer.job_id.startswith(spec.job_id_prefix)


def test_another_spec_under_the_same_id_is_refused_and_the_difference_named(client: BsoClient) -> None:
    spec = client.register(registered())
    with pytest.raises(ServerRefused, match="max_epochs") as refusal:
        client.register(spec.model_copy(update={"max_epochs": 11}))
    assert refusal.value.status == 409


def test_a_run_that_asks_again_gets_the_same_trial(client: BsoClient) -> None:
    job_id = client.register(registered()).job_id or ""
    first, again, other = (client.ask(job_id, run_id) for run_id in ("one", "one", "two"))
    assert (first.trial_number, first.batch_size) == (1, 16)
    assert again == first
    assert other.trial_number == 2


def test_an_unknown_job_is_refused_with_what_the_server_says(client: BsoClient) -> None:
    with pytest.raises(ServerRefused, match=r"nobody.*\(HTTP 400\)") as refusal:
        client.ask("nobody", "run")
    assert refusal.value.status == 400
    assert "nobody" in refusal.value.answer.message


def test_a_report_brings_the_verdict(client: BsoClient) -> None:
    trial = client.ask(client.register(registered()).job_id or "", "run")
    first = client.report(report_request(trial))
    assert (first.stop_train, first.converged, first.cost) == (False, False, 10.0)
    last = client.report(report_request(trial, metric=1.0, energy=20.0, current_epoch=2, report_number=2))
    assert (last.stop_train, last.converged, last.cost) == (True, True, 20.0)


def test_a_report_sent_twice_brings_the_same_verdict_and_counts_once(client: BsoClient) -> None:
    trial = client.ask(client.register(registered()).job_id or "", "run")
    request = report_request(trial, metric=1.0)
    assert client.report(request) == client.report(request)
    assert client.describe(trial.job_id).batch_sizes[1].runs == 1


def test_a_report_that_goes_back_is_refused(client: BsoClient) -> None:
    trial = client.ask(client.register(registered()).job_id or "", "run")
    client.report(report_request(trial))
    with pytest.raises(ServerRefused, match="energy fell") as refusal:
        client.report(report_request(trial, energy=9.0, report_number=2))
    assert refusal.value.status == 409


def test_a_heartbeat_returns_the_status_of_the_trial(client: BsoClient) -> None:
    trial = client.ask(client.register(registered()).job_id or "", "run")
    answer = client.heartbeat(HeartbeatRequest(job_id=trial.job_id, trial_number=trial.trial_number))
    assert (answer.status, answer.lease_s) == ("Dispatched", trial.lease_s)


def test_ending_a_trial_records_the_reason(client: BsoClient) -> None:
    trial = client.ask(client.register(registered()).job_id or "", "run")
    keys = {"job_id": trial.job_id, "batch_size": trial.batch_size, "trial_number": trial.trial_number}
    client.end(TrialRequest(**keys, reason="out of memory"))
    stored = stored_trial(client, trial)
    assert (stored.status, stored.outcome) == ("Failed", "out of memory")


def test_ending_an_unknown_trial_is_refused(client: BsoClient) -> None:
    job_id = client.register(registered()).job_id or ""
    with pytest.raises(ServerRefused) as refusal:
        client.end(TrialRequest(job_id=job_id, batch_size=16, trial_number=7))
    assert refusal.value.status == 404


@pytest.mark.parametrize("job_id", ["a/b c?d=e&f#g%20", "Größe-試験"])
def test_any_name_of_a_job_is_understood(client: BsoClient, job_id: str) -> None:
    client.register(registered(job_id=job_id, job_id_prefix=job_id))
    trial = client.ask(job_id, "run")
    assert client.describe(job_id).trials == 1
    assert [stored.trial_number for stored in client.list_trials(job_id).trials] == [trial.trial_number]


def test_lists_are_read_in_parts(client: BsoClient) -> None:
    job_id = client.register(registered()).job_id or ""
    for run_id in ("one", "two", "three"):
        client.ask(job_id, run_id)
    page = client.list_trials(job_id, offset=1, limit=1)
    assert (page.total, [trial.trial_number for trial in page.trials]) == (3, [2])
    assert client.list_jobs(limit=1).jobs[0].job_id == job_id
    assert client.list_jobs(limit=MAX_PAGE).total >= 1
