"""Several processes form one run: one ask, one report per validation, and one end for all of them."""

import logging
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from lightning_bso import BsoClient, ZeusBSOCallback
from lightning_bso.lightning import probing
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial
from tests.databases import free_port
from tests.lightning.ranks import RankModule, fit_in_ranks, run_ranks
from tests.lightning.trainings import Module, fit, reported_epochs
from tests.servers import Server


def test_all_ranks_train_with_their_share_and_stop_together(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job(target_metric=0.7)
    metrics = [(0.2, 0.4), (0.4, 1.0)]  # by its own metrics rank 1 would stop after two epochs, and rank 0 never
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule(metrics[rank]))
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    for rank in ranks:
        assert rank.result == {"batch_size": 16, "sizes": [8], "epochs": 2, "trial": 1, "converged": True}
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.converged, trial.energy, trial.time) == (True, 20.0, 2.0)  # one monitor per node counts
    assert reported_epochs(server, fields["job_id_prefix"]) == [1, 2]


def test_the_energy_of_all_nodes_is_counted(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job()
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule([0.5, 1.0]), nodes=2)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.energy, trial.time) == (40.0, 2.0)


def test_without_a_monitor_every_process_estimates_its_part(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job(max_power=0.0, number_of_gpus=0, gpu_model="")
    del fields["max_power"], fields["number_of_gpus"], fields["gpu_model"]
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule([1.0]), monitor=lambda rank: None)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    trial = only_trial(client, fields["job_id_prefix"])
    assert trial.energy_source == "estimated"
    assert trial.energy > 0
    (job_id,) = (
        listed.job_id for listed in client.list_jobs().jobs if listed.job_id.startswith(fields["job_id_prefix"])
    )
    assert client.describe(job_id).spec.number_of_gpus == 1  # one per node


def test_a_metric_that_only_some_ranks_log_is_the_metric(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job()
    metrics: list[Iterator[float | None]] = [repeat(None), iter([0.5, 1.0])]
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule(metrics[rank]))
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    assert only_trial(client, fields["job_id_prefix"]).converged


def test_several_ranks_log_once_that_they_make_no_probe(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job(policy="gp-ucb")

    def training(rank: int) -> dict[str, Any]:
        messages: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger(probing.__name__).addHandler(handler)
        callback = ZeusBSOCallback(server.url, fields, probe="auto")  # every rank has a meter
        fit(callback, RankModule([1.0]), devices=2, strategy="ddp")
        return {"messages": messages, "job_id": callback.job_id}

    first, second = run_ranks(tmp_path, training)
    assert [first.exit_code, second.exit_code] == [0, 0], first.stderr + second.stderr
    (message,) = first.result["messages"] + second.result["messages"]
    assert message == "No probe of batch sizes: it requires one process that trains on one device"
    assert not client.ask(first.result["job_id"], "another run").probe_wanted


def test_a_run_that_fails_raises_on_every_rank(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job(max_epochs=2)
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule())
    for rank in ranks:
        assert rank.exit_code == 1
        assert "ZeusBSOTrainFailError: batch size 16" in rank.stderr
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.converged, trial.energy) == (False, 20.0)


def test_a_metric_that_no_rank_logs_is_an_error_on_every_rank(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job()
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: RankModule(repeat(None)))
    for rank in ranks:
        assert rank.exit_code == 1
        assert "found no such metric after the validation" in rank.stderr
    assert "found no such metric" in str(only_trial(client, fields["job_id_prefix"]).outcome)


def test_a_server_that_does_not_answer_is_an_error_on_every_rank(tmp_path: Path) -> None:
    ranks = fit_in_ranks(tmp_path, f"http://127.0.0.1:{free_port()}", job(), lambda rank: RankModule())
    for rank in ranks:
        assert rank.exit_code == 1
        assert "ServerUnreachable" in rank.stderr


def test_a_job_that_the_server_refuses_is_an_error_on_every_rank(server: Server, tmp_path: Path) -> None:
    fields = job()
    fields["job_id"] = fields["job_id_prefix"]
    fit(ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor()), Module([1.0]))
    other = fields | {"eta_knob": 0.25}
    for rank in fit_in_ranks(tmp_path, server.url, other, lambda rank: RankModule()):
        assert rank.exit_code == 1
        assert "ServerRefused" in rank.stderr
        assert "eta_knob" in rank.stderr


class Breaking(RankModule):
    """Raises in its second epoch."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.trainer.current_epoch == 1:
            raise ValueError("this rank has had enough")
        return super().training_step(batch, index)


def test_a_rank_that_breaks_ends_the_trial(server: Server, client: BsoClient, tmp_path: Path) -> None:
    fields = job()
    ranks = fit_in_ranks(tmp_path, server.url, fields, lambda rank: (RankModule, Breaking)[rank]())
    assert all(rank.exit_code for rank in ranks)
    trial = only_trial(client, fields["job_id_prefix"])
    assert trial.status != "Dispatched"
    assert trial.energy == 10.0


class BrokenMonitor(ScriptedMonitor):
    """Fails at the end of a window."""

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        raise RuntimeError("the driver is gone")


def test_a_meter_that_fails_on_one_node_ends_the_trial_and_not_the_training(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job()

    def monitor(rank: int) -> ScriptedMonitor:
        return (ScriptedMonitor, BrokenMonitor)[rank]()

    ranks = fit_in_ranks(
        tmp_path, server.url, fields, lambda rank: RankModule(), nodes=2, monitor=monitor, max_epochs=2
    )
    for rank in ranks:
        assert "AssertionError" in rank.stderr  # no result, because the fit ends without a verdict
    assert "the driver is gone" in str(only_trial(client, fields["job_id_prefix"]).outcome)


class BreakingModule(Module):
    """Raises in its second epoch."""

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        if self.trainer.current_epoch == 1:
            raise ValueError("enough")
        return super().training_step(batch, index)


@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_an_error_in_a_forked_or_spawned_process_comes_through_and_ends_the_trial(
    strategy: str, server: Server, client: BsoClient
) -> None:
    fields = job()
    with pytest.raises(ProcessRaisedException, match="ValueError: enough"):
        fit(ZeusBSOCallback(server.url, fields), BreakingModule([0.5, 0.5]), devices=2, strategy=strategy)
    assert only_trial(client, fields["job_id_prefix"]).outcome == "ValueError: enough"


def test_a_verdict_in_forked_processes_comes_through(server: Server, client: BsoClient) -> None:
    fields = job(max_epochs=2)
    with pytest.raises(ProcessRaisedException, match="ZeusBSOTrainFailError: batch size 16"):
        fit(ZeusBSOCallback(server.url, fields), Module([0.5, 0.5]), devices=2, strategy="ddp_fork")
    assert only_trial(client, fields["job_id_prefix"]).converged is False

    fields = job()
    fit(ZeusBSOCallback(server.url, fields), Module([0.5, 1.0]), devices=2, strategy="ddp_fork")
    assert only_trial(client, fields["job_id_prefix"]).converged
    assert number_of_trials(client, fields["job_id_prefix"]) == 1
