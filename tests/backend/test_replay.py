"""Decisions follow from the stored data: they are the same on every database and when they are replayed."""

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from backend.app import create_app
from backend.config import Settings
from backend.usecases import reading
from tests.calls import Calls
from tests.databases import MariaDB, connected, let_time_pass

LEASE_S = 3600


def work(calls: Calls, database_url: str, dice: random.Random, steps: int) -> list[tuple[int, str]]:
    """Make random asks, reports, ends, losses, returns, revivals and resets. Returns the choices in order."""
    choices = []
    running: list[dict[str, Any]] = []
    epochs: dict[int, int] = {}
    for step in range(steps):
        action = dice.choices(("ask", "report", "end", "come back", "lose", "reset"), (6, 12, 0.5, 0.5, 1, 0.05))[0]
        if not running or (action == "ask" and len(running) < 6):
            answer = calls.ask(run_id=f"run-{step}")
            if answer.status == 409:
                calls.must(calls.reset())
                continue
            running.append(calls.must(answer) | {"run_id": f"run-{step}"})
            choices.append((running[-1]["batch_size"], running[-1]["type"]))
            continue
        trial = dice.choice(running)
        match action:
            case "lose":
                let_time_pass(database_url, "train", trial["trial_number"], LEASE_S + 1)
            case "reset":
                calls.must(calls.reset())
            case "end":
                calls.must(calls.end(trial))
                running.remove(trial)
            case "come back":
                calls.must(calls.end(trial))
                assert calls.trial(run_id=trial["run_id"])["trial_number"] == trial["trial_number"]
            case _:
                epoch = epochs[trial["trial_number"]] = epochs.get(trial["trial_number"], 0) + 1
                size = trial["batch_size"]
                metric = None if dice.random() < 0.02 else float(size < 64 and dice.random() < 0.5)
                energy = epoch * (10 + size / 16 + dice.random() / 100)
                totals = {"energy": energy, "time": float(epoch), "current_epoch": epoch}
                if calls.must(calls.report(trial, metric=metric, **totals))["stop_train"]:
                    running.remove(trial)
    return choices


@pytest.mark.parametrize("seed", [1, 2])
def test_every_decision_of_a_random_workload_follows_from_what_is_stored(
    app: Flask, calls: Calls, database_url: str, seed: int
) -> None:
    calls.register(batch_sizes=[8, 16, 32, 64], beta_knob=4.0, max_epochs=6, num_pruning_rounds=1)
    choices = work(calls, database_url, random.Random(seed), steps=400)
    with connected(database_url) as connection:
        revived = "SELECT COUNT(*) FROM reports WHERE expired_revision IS NOT NULL"
        assert connection.exec_driver_sql(revived).scalar_one() > 0
    assert {type_ for _, type_ in choices} == {"Pruning", "Concurrent", "MAB"}
    with app.app_context():
        assert reading.replay_job("train") == (len(choices), [])


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE trials SET batch_size = 8 WHERE number = 1",
        "UPDATE trials SET type = 'MAB' WHERE number = 2",
        "UPDATE reports SET code = 'converged' WHERE code = 'continue'",
        "UPDATE trials SET reason = 'by whim' WHERE number = 1",
        "UPDATE reports SET message = 'by whim' WHERE code = 'converged'",
        "UPDATE jobs SET seed = seed + 1",
    ],
    ids=["batch size", "type", "verdict", "reason of a choice", "reason of a verdict", "seed"],
)
def test_a_stored_decision_that_was_tampered_with_is_found(
    app: Flask, calls: Calls, database_url: str, tampering: str
) -> None:
    calls.register(num_pruning_rounds=1, mab_num_explorations=5)
    for _ in range(12):
        trial = calls.trial()
        calls.must(calls.report(trial))
        calls.converge(trial, energy=11.0)
    with app.app_context():
        assert reading.replay_job("train")[1] == []
        with connected(database_url) as connection:
            connection.exec_driver_sql(tampering)
        assert reading.replay_job("train")[1] != []


def test_a_seeded_job_makes_the_same_choices_on_every_database(
    mariadb: MariaDB, migrated_sqlite_file: Path, tmp_path: Path
) -> None:
    stories = []
    for url in (mariadb.database(), f"sqlite:///{shutil.copy(migrated_sqlite_file, tmp_path / 'bso.db')}"):
        app = create_app(Settings(database_url=url, log_level="CRITICAL"))
        calls = Calls.through_test_client(app.test_client())
        calls.register(batch_sizes=[8, 16, 32, 64], beta_knob=4.0, max_epochs=6, num_pruning_rounds=1, mab_seed=7)
        stories.append(work(calls, url, random.Random(3), steps=300))
    assert stories[0] == stories[1]
    assert len(stories[0]) > 50


def test_jobs_without_a_seed_get_different_ones(calls: Calls) -> None:
    stories = set()
    for number in range(5):
        job_id = f"train-{number}"
        calls.register(job_id=job_id, mab_seed=None, num_pruning_rounds=0, batch_sizes=[8, 16, 32, 64])
        stories.add(tuple(calls.trial(job_id)["batch_size"] for _ in range(8)))
    assert len(stories) > 1


def test_another_server_over_the_same_database_continues_the_same_draws(database_url: str) -> None:
    def ask(job_id: str, calls: Calls) -> int:
        return int(calls.trial(job_id)["batch_size"])

    servers = [create_app(Settings(database_url=database_url, log_level="CRITICAL")) for _ in range(2)]
    one, other = (Calls.through_test_client(server.test_client()) for server in servers)
    for job_id in ("train-by-one", "train-by-two"):
        one.register(job_id=job_id, num_pruning_rounds=0)
    alone = [ask("train-by-one", one) for _ in range(20)]
    in_turn = [ask("train-by-two", one if number % 2 else other) for number in range(20)]
    assert alone == in_turn
