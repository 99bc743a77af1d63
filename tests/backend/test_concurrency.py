"""Many simultaneous calls to four worker processes over one database."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from backend.app import create_app
from backend.config import Settings
from backend.database.extensions import db
from backend.usecases import reading
from tests.calls import Answer
from tests.databases import dump, revision
from tests.servers import Server

ASKS, ASKS_AT_FULL_SIZE = 100, 400
CALLERS = 32
ROUNDS, ROUNDS_AT_FULL_SIZE = 200, 1000
RUNS = 4


@pytest.fixture(scope="module", params=["sqlite", "mariadb", "postgresql"])
def server(
    request: pytest.FixtureRequest,
    new_database: Callable[[str, Path], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """Four worker processes over a new database. Each test uses its own job."""
    folder = tmp_path_factory.mktemp("server")
    with Server(new_database(request.param, folder), folder, workers=4) as running:
        yield running


@pytest.fixture
def asks(request: pytest.FixtureRequest) -> int:
    """Number of runs that ask at once."""
    return ASKS_AT_FULL_SIZE if request.config.getoption("full_size") else ASKS


def test_trials_asked_for_at_once_are_numbered_without_gap_or_repeat(server: Server, asks: int) -> None:
    calls = server.calls
    calls.register(job_id="train-asked")
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: calls.ask("train-asked"), range(asks)))
    assert {answer.status for answer in answers} == {200}
    assert sorted(answer.body["trial_number"] for answer in answers) == list(range(1, asks + 1))
    assert sum(answer.body["type"] == "Pruning" for answer in answers) == 1
    assert revision(server.database_url, "train-asked") == asks


def test_the_bandit_asked_at_once_draws_for_every_trial(server: Server) -> None:
    calls = server.calls
    calls.register(job_id="train-bandit", num_pruning_rounds=0, mab_num_explorations=1)
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: calls.ask("train-bandit"), range(100)))
    together = {answer.body["trial_number"]: answer.body["batch_size"] for answer in answers}
    calls.register(job_id="train-in-turn", num_pruning_rounds=0, mab_num_explorations=1)
    in_turn = [calls.trial("train-in-turn")["batch_size"] for _ in range(100)]
    assert [together[number] for number in range(1, 101)] == in_turn


def test_runs_under_gp_ucb_that_begin_and_end_at_once_are_decided_by_what_ended_before(
    server: Server, asks: int
) -> None:
    calls = server.calls
    calls.register(job_id="train-gp-ucb", policy="gp-ucb")

    def train(_: int) -> None:
        calls.converge(calls.trial("train-gp-ucb"))

    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(train, range(asks)))
    app = create_app(Settings(database_url=server.database_url, log_level="CRITICAL"))
    with app.app_context():
        assert reading.replay_job("train-gp-ucb") == (asks, [])
        db.engine.dispose()
    calls.must(calls.delete("train-gp-ucb"))


def test_runs_that_end_their_calibration_at_once_learn_one_target(server: Server) -> None:
    calls = server.calls
    calls.register(job_id="train-auto", target_metric=None, max_epochs=2)
    together = Barrier(8)

    def train(number: int) -> str:
        trial = calls.trial("train-auto")
        calls.must(calls.report(trial, metric=0.1, report_number=1))
        together.wait()
        last = {"metric": 0.5 + number / 100, "current_epoch": 2, "report_number": 2}
        return str(calls.must(calls.report(trial, **last))["reason"])

    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(train, range(8)))
    learnt = calls.describe("train-auto")["learnt_target"]
    records = calls.records("train-auto")
    assert reasons.count("calibrated") == len(learnt["trials"]) == 3
    of_target = [record["best_metric"] for record in records if record["trial_number"] in learnt["trials"]]
    assert learnt["target_metric"] == min(of_target)
    assert {record["type"] for record in records} == {"Calibration"}
    assert [record["converged"] for record in records] == [
        record["best_metric"] >= learnt["target_metric"] for record in records
    ]
    app = create_app(Settings(database_url=server.database_url, log_level="CRITICAL"))
    with app.app_context():
        assert reading.replay_job("train-auto") == (8, [])
        db.engine.dispose()
    calls.must(calls.delete("train-auto"))


@pytest.mark.parametrize("job_id", [f"train-new-{number}" for number in range(3)])
def test_one_job_registered_by_many_at_once_is_created_once(server: Server, job_id: str) -> None:
    calls, together = server.calls, Barrier(CALLERS)

    def register(_: int) -> Answer:
        together.wait()
        return calls.register(job_id=job_id)

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(register, range(CALLERS)))
    assert sorted(answer.status for answer in answers) == [200] * (CALLERS - 1) + [201]
    assert len({answer.text for answer in answers}) == 1


def test_one_run_that_asks_many_times_at_once_gets_one_trial(server: Server) -> None:
    calls = server.calls
    calls.register(job_id="train-one-run")
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: calls.ask("train-one-run", "run"), range(CALLERS)))
    assert {(answer.status, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert len(calls.records("train-one-run")) == 1


def test_no_report_made_at_once_with_others_is_lost(server: Server, request: pytest.FixtureRequest) -> None:
    calls, job_id = server.calls, "train-reports"
    rounds = ROUNDS_AT_FULL_SIZE if request.config.getoption("full_size") else ROUNDS
    calls.register(job_id=job_id, max_epochs=rounds + 1)
    trials = [calls.trial(job_id) for _ in range(RUNS)]

    def report(run: int, number: int) -> Answer:
        energy = float(number * 10 + run)
        return calls.report(trials[run], energy=energy, time=energy, current_epoch=number, report_number=number)

    with ThreadPoolExecutor(RUNS) as pool:
        for number in range(1, rounds + 1):
            answers = list(pool.map(report, range(RUNS), [number] * RUNS))
            assert [answer.status for answer in answers] == [200] * RUNS, answers

    records = calls.records(job_id)
    assert [record["energy"] for record in records] == [float(rounds * 10 + run) for run in range(RUNS)]
    assert [record["current_epoch"] for record in records] == [rounds] * RUNS
    assert revision(server.database_url, job_id) == RUNS + RUNS * rounds
    stored = [row[:5] for row in dump(server.database_url)["reports"]]
    expected = [(float(number * 10 + run), number) for run in range(RUNS) for number in range(1, rounds + 1)]
    assert sorted((row[4], row[1]) for row in stored) == sorted(expected)


def test_one_report_sent_many_times_at_once_is_stored_once(server: Server) -> None:
    calls, job_id = server.calls, "train-same-report"
    calls.register(job_id=job_id)
    trial = calls.trial(job_id)
    before = len(dump(server.database_url)["reports"])
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: calls.report(trial, metric=1.0, report_number=1), range(CALLERS)))
    assert {(answer.status, answer.text) for answer in answers} == {(200, answers[0].text)}
    assert len(dump(server.database_url)["reports"]) == before + 1
