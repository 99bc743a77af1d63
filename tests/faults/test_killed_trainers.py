"""Trainings killed with SIGKILL, at every point of a run and in every stage of a job."""

from collections.abc import Callable
from typing import Any

import pytest

from lightning_bso import BsoClient
from tests import specs
from tests.client.run import run_process
from tests.databases import connected, let_time_pass
from tests.faults.checks import answered, assert_decided_well
from tests.faults.databases import others_are_long
from tests.faults.proxy import Proxy
from tests.servers import Server

LEASE_S = 3600.0


@others_are_long
@pytest.mark.parametrize(
    ("changes", "stage", "reason"),
    [
        ({"policy": "zeus"}, "Pruning", "converged"),
        pytest.param({"policy": "zeus", "num_pruning_rounds": 0}, "MAB", "converged", marks=pytest.mark.long),
        pytest.param({"policy": "gp-ucb"}, "MAB", "converged", marks=pytest.mark.long),
        ({"policy": "gp-ucb", "target_metric": None}, "Calibration", "calibrated"),
    ],
    ids=["pruning", "bandit", "gp-ucb", "calibration"],
)
def test_a_run_that_is_killed_at_every_point_keeps_its_trial_and_its_reports(
    database_url: str, serve: Callable[..., Server], changes: dict[str, Any], stage: str, reason: str
) -> None:
    fields = specs.job(max_epochs=3, **changes)
    with serve(database_url) as server, Proxy(server.url) as proxy:
        client = BsoClient(server.url)

        def launched(*metrics: float, run_id: str = "run") -> Any:
            return run_process(proxy.url, fields, *metrics, RUN_ID=run_id)

        with launched(0.4) as before_its_first_report:
            assert before_its_first_report.trial == 1
        with launched(0.5) as during_a_report:
            assert during_a_report.trial == 1
            proxy.lose("POST", "/report", meanwhile=during_a_report.kill)
            during_a_report.report()
            assert proxy.lost.wait(30)
        with launched(0.6, 0.7) as between_two_reports:
            assert between_two_reports.trial == 1
            between_two_reports.report()
            while client.list_trials("train").trials[0].current_epoch < 2:
                pass
        with launched(1.0) as last:
            assert last.trial == 1
            last.report()
            assert last.verdict == reason
        with connected(database_url) as connection:
            reports = connection.exec_driver_sql("SELECT number, energy_j, metric FROM reports ORDER BY number").all()
        assert list(map(tuple, reports)) == [(1, 10.0, 0.5), (2, 20.0, 0.6), (3, 30.0, 1.0)]

        with launched(0.4, run_id="gone for ever") as gone:
            assert gone.trial == 2
        let_time_pass(database_url, "train", 2, LEASE_S + 1)
        assert_decided_well(server, "train")
        trials = client.list_trials("train").trials
        assert [trial.outcome_code for trial in trials[:2]] == [reason, "lost"]
        assert [trial.type for trial in trials] == [stage] * 3
        assert trials[2].batch_size == trials[1].batch_size or stage == "MAB"
        assert set(answered(server)) <= {200, 201}
