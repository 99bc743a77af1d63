"""A program of several processes that does not know the optimizer is one run, and trains on without its server."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lightning_bso import BsoClient
from lightning_bso.energy import WATTS_PER_BUSY_CORE
from tests.lightning.unaware import OWN_SIZE, PLAIN, RANKS, automatic, final_weights, launch_ranks
from tests.servers import Server

LAUNCHES = 4
CALIBRATION_RUNS = 3
BUSY_S = 1.0
RANKED = PLAIN.replace("pl.Trainer(", f"pl.Trainer(strategy='ddp', devices={RANKS}, ")
"""Two processes, whose author has chosen `OWN_SIZE` for each."""
TRAIN_BEGINS = "    def on_train_epoch_start(self):\n        if self.trainer.current_epoch == 0"


@pytest.fixture
def server(new_database: Callable[[str, Path], str], tmp_path: Path) -> Server:
    """A server for one test, which starts it."""
    return Server(new_database("sqlite", tmp_path), tmp_path)


def at_the_start(of_rank: int, code: str) -> str:
    """Return the script with code that one rank runs as soon as it trains, and thus is measured."""
    hook = f"{TRAIN_BEGINS} and self.global_rank == {of_rank}:\n            {code}\n\n"
    return RANKED.replace("    def training_step", f"{hook}    def training_step", 1)


def test_all_ranks_take_the_same_batch_size_and_a_launch_is_one_trial(server: Server, tmp_path: Path) -> None:
    without_us = launch_ranks(RANKED, tmp_path)
    assert [run.exit_status for run in without_us] == [0] * RANKS, without_us[0].errors
    weights = final_weights(tmp_path)
    with server:
        for number in range(LAUNCHES):
            runs = launch_ranks(RANKED, tmp_path, **automatic(server.url))
            assert [run.exit_status for run in runs] == [0] * RANKS, runs[0].errors
            assert all(f"left at {OWN_SIZE}" in run.output for run in runs)
            client = BsoClient(server.url)
            (listing,) = client.list_jobs().jobs
            trials = client.list_trials(listing.job_id).trials
            assert [trial.trial_number for trial in trials] == list(range(1, number + 2))
            assert [run.sizes for run in runs] == [[trials[-1].batch_size // RANKS]] * RANKS
            as_without_us = (trials[-1].batch_size == OWN_SIZE * RANKS, final_weights(tmp_path) == weights)
            assert as_without_us == (number < CALIBRATION_RUNS,) * 2


def test_the_energy_of_every_rank_is_counted(server: Server, tmp_path: Path) -> None:
    busy = f"""
import time
def be_busy():
    end = time.process_time() + {BUSY_S}
    while time.process_time() < end: pass
{at_the_start(1, "be_busy()")}
print("CPU time", time.process_time())
"""
    with server:
        runs = launch_ranks(busy, tmp_path, **automatic(server.url))
        (listing,) = BsoClient(server.url).list_jobs().jobs
        (trial,) = BsoClient(server.url).list_trials(listing.job_id).trials
    of_rank_zero_s = float(runs[0].output.split("CPU time ")[1])
    assert trial.energy > WATTS_PER_BUSY_CORE * max(of_rank_zero_s, BUSY_S)


@pytest.mark.parametrize("dies", ["before the launch", "while the training runs"])
def test_with_the_server_killed_all_ranks_train_as_without_us(dies: str, server: Server, tmp_path: Path) -> None:
    dying = "import os\n" + at_the_start(0, "if 'SERVER' in os.environ: os.kill(int(os.environ['SERVER']), 9)")
    before = launch_ranks(dying, tmp_path)
    weights = final_weights(tmp_path)
    with server:
        assert server.process is not None
        variables = automatic(server.url, SERVER=str(server.process.pid))
        if dies == "before the launch":
            server.kill()
            del variables["SERVER"]
        runs = launch_ranks(dying, tmp_path, **variables)
    assert [(run.exit_status, run.output) for run in runs] == [(0, run.output) for run in before], runs[0].errors
    assert final_weights(tmp_path) == weights
    assert "no answer from http://127.0.0.1" in runs[0].errors
    assert sum("Traceback" in run.errors for run in runs) == 0
