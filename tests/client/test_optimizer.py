"""A run without a framework, from its ask to its verdict, on a real server."""

import logging
import math

import numpy as np
import pytest
import torch

from lightning_bso import (
    BatchSizeOptimizer,
    BsoClient,
    BSOError,
    JobSpec,
    ProbedSize,
    ServerRefused,
    TorchRanks,
    ZeusBSOTrainFailError,
)
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial, start_run, stored_trial
from tests.servers import Server


def end_with(bso: BatchSizeOptimizer, *metrics: float) -> None:
    """Report these validations. The last one must end the run."""
    for metric in metrics:
        assert not bso.training_finished
        bso.on_evaluate(metric)
    assert bso.training_finished


def test_the_documentations_loop_trains_until_the_target_is_reached(server: Server, client: BsoClient) -> None:
    metrics = iter([0.2, 0.7, 1.0])
    monitor = ScriptedMonitor([10.0, 20.0, 30.0])
    bso = BatchSizeOptimizer(monitor, server.url, JobSpec(**job()))
    batch_size = bso.get_batch_size()
    bso.on_train_begin()
    while not bso.training_finished:
        bso.on_evaluate(next(metrics))
    assert batch_size == 16
    assert bso.result is not None
    assert bso.result.converged
    stored = stored_trial(client, bso)
    assert (stored.batch_size, stored.converged, stored.current_epoch) == (16, True, 3)
    assert (stored.energy, stored.time, stored.cost) == (60.0, 3.0, 60.0)
    assert not monitor.is_open


def test_a_job_is_a_spec_or_a_dict_of_one(server: Server, client: BsoClient) -> None:
    fields = job()
    BatchSizeOptimizer(ScriptedMonitor(), server.url, fields).get_batch_size()
    BatchSizeOptimizer(ScriptedMonitor(), server.url, JobSpec(**fields)).get_batch_size()
    assert number_of_trials(client, fields["job_id_prefix"]) == 2


def test_a_job_without_an_id_is_the_same_job_at_the_next_launch(server: Server, client: BsoClient) -> None:
    fields = job()
    first, second = start_run(server.url, job=fields), start_run(server.url, job=fields)
    assert first.trial is not None
    assert second.trial is not None
    assert first.trial.job_id == second.trial.job_id
    assert first.trial.job_id.startswith(fields["job_id_prefix"] + "-")
    assert (first.trial.trial_number, second.trial.trial_number) == (1, 2)


@pytest.mark.parametrize("change", [{"max_epochs": 11}, {"gpu_model": "H100"}, {"batch_sizes": [8, 16]}])
def test_a_changed_spec_is_another_job(server: Server, change: dict[str, object]) -> None:
    fields = job()
    first, second = start_run(server.url, job=fields), start_run(server.url, job=fields | change)
    assert first.trial is not None
    assert second.trial is not None
    assert first.trial.job_id != second.trial.job_id


def test_the_order_in_which_batch_sizes_are_written_makes_no_other_job(server: Server) -> None:
    fields = job()
    first, second = start_run(server.url, job=fields), start_run(server.url, job=fields | {"batch_sizes": [32, 8, 16]})
    assert first.trial is not None
    assert second.trial is not None
    assert first.trial.job_id == second.trial.job_id


def test_a_changed_spec_under_a_given_id_is_refused(server: Server) -> None:
    fields = job()
    fields = fields | {"job_id": fields["job_id_prefix"]}
    start_run(server.url, job=fields)
    with pytest.raises(ServerRefused, match="differs in max_epochs"):
        start_run(server.url, job=fields | {"max_epochs": 11})


def test_a_run_that_is_launched_again_gets_its_trial_and_its_totals_back(server: Server, client: BsoClient) -> None:
    fields = job()
    before = start_run(server.url, ScriptedMonitor([10.0, 20.0]), job=fields, run_id="run")
    before.on_evaluate(0.1)
    before.on_evaluate(0.2)
    after = start_run(server.url, ScriptedMonitor([40.0]), job=fields, run_id="run")
    after.on_evaluate(0.3)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.energy, stored.time, stored.current_epoch, stored.status) == (70.0, 3.0, 3, "Dispatched")


def test_a_run_that_restarts_under_its_name_continues_its_totals(server: Server, client: BsoClient) -> None:
    # The run has no checkpoint, so its epochs start at 1 again. Its totals continue.
    fields = job()
    before = start_run(server.url, job=fields, run_id="run")
    for epoch in (1, 2, 3):
        before.on_evaluate(0.5, current_epoch=epoch)
    restarted = start_run(server.url, job=fields, run_id="run")
    for epoch, metric in ((1, 0.5), (2, 0.5), (3, 0.5), (4, 1.0)):
        restarted.on_evaluate(metric, current_epoch=epoch)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.status, stored.converged, stored.energy, stored.current_epoch) == ("Succeeded", True, 70.0, 4)


def test_a_run_names_itself_for_the_process_that_resumes_it(server: Server, client: BsoClient) -> None:
    fields = job()
    first = start_run(server.url, job=fields)
    start_run(server.url, job=fields, run_id=first.run_id)
    assert number_of_trials(client, fields["job_id_prefix"]) == 1


def test_a_single_process_is_the_only_rank(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    bso = start_run(server.url, ranks=TorchRanks())
    assert (bso.ranks.rank, bso.ranks.size, bso.ranks.mean(0.5)) == (0, 1, 0.5)
    end_with(bso, 0.5, 1.0)


def test_several_processes_require_an_initialized_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BSOError, match=r"torch\.distributed is not initialized"):
        TorchRanks()


def test_a_run_whose_verdict_is_known_cannot_be_launched_again(server: Server) -> None:
    fields = job()
    end_with(start_run(server.url, job=fields, run_id="run"), 1.0)
    with pytest.raises(BSOError, match=r"run 'run' of job .* \(trial 1\) has ended already: .*another run_id"):
        start_run(server.url, job=fields, run_id="run")


def test_a_run_that_has_not_converged_in_max_epochs_fails(server: Server, client: BsoClient) -> None:
    bso = start_run(server.url, job=job(max_epochs=2))
    bso.on_evaluate(0.5)
    with pytest.raises(ZeusBSOTrainFailError, match="within 2 epochs") as failure:
        bso.on_evaluate(0.5)
    stored = stored_trial(client, bso)
    assert (stored.status, stored.converged) == ("Succeeded", False)
    assert (failure.value.trial_number, failure.value.batch_size) == (1, 16)
    assert failure.value.reason == stored.outcome


def test_a_run_that_costs_too_much_fails(server: Server, client: BsoClient) -> None:
    fields = job()
    end_with(start_run(server.url, ScriptedMonitor([10.0]), job=fields), 1.0)
    expensive = start_run(server.url, ScriptedMonitor([15.0, 15.0]), job=fields)
    expensive.on_evaluate(0.5)
    with pytest.raises(ZeusBSOTrainFailError, match=r"cost 30\.0 J exceeds 20\.0 J"):
        expensive.on_evaluate(0.5)
    assert stored_trial(client, expensive).converged is False


def test_a_first_run_whose_first_epoch_is_too_dear_ends_and_launched_again_the_training_gets_another_batch_size(
    server: Server, client: BsoClient
) -> None:
    fields = job(policy="gp-ucb", max_epochs=50)
    end_with(start_run(server.url, ScriptedMonitor([10.0] * 9), job=fields), *[0.5] * 8, 1.0)
    dear = start_run(server.url, ScriptedMonitor([80.0]), job=fields)
    with pytest.raises(ZeusBSOTrainFailError, match=r"the first epoch has cost 80.0 J, more than the .* J") as failure:
        dear.on_evaluate(0.5)
    assert "launch the training again to get the next batch size" in str(failure.value)
    stored = stored_trial(client, dear)
    assert (stored.outcome_code, stored.converged) == ("priced_out", None)
    again = start_run(server.url, job=fields)
    assert again.trial is not None
    assert again.trial.batch_size != stored.batch_size


def test_a_training_that_goes_on_after_its_verdict_gets_none_after_its_first_epoch(server: Server) -> None:
    fields = job(policy="gp-ucb", max_epochs=50)
    end_with(start_run(server.url, ScriptedMonitor([10.0] * 9), job=fields), *[0.5] * 8, 1.0)
    dear = start_run(server.url, ScriptedMonitor([80.0]), job=fields, stop=False)
    dear.on_evaluate(0.5)
    assert dear.result is None


@pytest.mark.parametrize("metric", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_fails_the_run_and_is_on_record(
    server: Server, client: BsoClient, metric: float
) -> None:
    bso = start_run(server.url)
    with pytest.raises(ZeusBSOTrainFailError, match="diverged"):
        bso.on_evaluate(metric)
    stored = stored_trial(client, bso)
    assert (stored.status, stored.converged, stored.energy) == ("Succeeded", False, 10.0)


@pytest.mark.parametrize("metric", [1, np.float32(1), np.float64(1), torch.tensor(1.0), torch.tensor(1)])
def test_a_metric_may_be_any_number(server: Server, metric: float) -> None:
    end_with(start_run(server.url), metric)


def test_a_loss_converges_from_above(server: Server) -> None:
    end_with(start_run(server.url, job=job(higher_is_better_metric=False, target_metric=0.1)), 0.5, 0.2, 0.1)


def test_epochs_are_counted_unless_given(server: Server, client: BsoClient) -> None:
    bso = start_run(server.url)
    for epoch in (0, 1, 1):
        bso.on_evaluate(0.5, current_epoch=epoch)
    assert stored_trial(client, bso).current_epoch == 1
    bso.on_evaluate(0.5)
    assert stored_trial(client, bso).current_epoch == 2


def test_an_evaluation_after_the_verdict_is_ignored(server: Server, client: BsoClient) -> None:
    bso = start_run(server.url)
    end_with(bso, 1.0)
    before = stored_trial(client, bso)
    bso.on_evaluate(0.0)
    assert stored_trial(client, bso) == before


def test_the_log_says_which_trial_this_is_and_why_it_has_its_batch_size(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lightning_bso")
    bso = start_run(server.url)
    assert bso.trial is not None
    assert f"Job {bso.trial.job_id}, trial 1: batch size 16 ({bso.trial.reason})" in caplog.messages
    assert bso.trial.reason


def test_training_cannot_begin_without_a_batch_size(server: Server) -> None:
    with pytest.raises(RuntimeError, match="get_batch_size"):
        BatchSizeOptimizer(ScriptedMonitor(), server.url, job()).on_train_begin()


def test_nothing_can_be_evaluated_before_training_begins(server: Server) -> None:
    bso = BatchSizeOptimizer(ScriptedMonitor(), server.url, job())
    bso.get_batch_size()
    with pytest.raises(RuntimeError, match="on_train_begin"):
        bso.on_evaluate(0.5)


def test_a_missing_job_is_an_error(server: Server) -> None:
    with pytest.raises(ValueError, match="job is missing"):
        BatchSizeOptimizer(server_url=server.url)


def test_the_next_run_knows_a_probe(server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture) -> None:
    fields = job(policy="gp-ucb")
    bso = start_run(server.url, job=fields)
    assert bso.probe_wanted
    sizes = [ProbedSize(batch_size=8, fits=True, epoch_time=1.0, epoch_energy=9.0, time=2.0, energy=20.0)]
    sizes += [ProbedSize(batch_size=32, fits=False, time=1.0, energy=10.0)]
    bso.report_probe(sizes)
    end_with(bso, 1.0)
    next_run = start_run(server.url, job=fields)
    assert not next_run.probe_wanted
    assert next_run.trial is not None
    ruled_out = {size.batch_size: size.ruled_out for size in client.describe(next_run.trial.job_id).batch_sizes}
    assert "does not fit in memory" in str(ruled_out[32])
    with caplog.at_level(logging.WARNING):
        next_run.report_probe([ProbedSize(batch_size=7, fits=False, time=1.0, energy=1.0)])
    assert "probe of batch sizes could not be reported" in caplog.text
    assert "7: not among the batch_sizes" in caplog.text
    next_run.report_probe(sizes * 40)
    assert "List should have at most 64 items" in caplog.text


def test_a_run_under_the_published_policy_wants_no_probe(server: Server) -> None:
    assert not start_run(server.url).probe_wanted
