"""`run()` asks for the batch size before the model exists. The fit in its block belongs to the same trial."""

import copy
import json
import subprocess
import sys
from itertools import repeat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.tuner import Tuner
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from lightning_bso import BsoClient, EnergyUnavailable, ServerUnreachable, ZeusBSOCallback, ZeusBSOTrainFailError
from tests.client import fake_nvml
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial
from tests.databases import free_port
from tests.lightning.ranks import run_ranks
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, ROWS, Bare, fit, rows, trainer
from tests.servers import ROOT, Server, environment

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs", "ignore:.*num_workers", "ignore:.*fork")


class Library:
    """A model of a library: takes the batch size and the callbacks when it is created, and trains with copies."""

    def __init__(self, batch_size: int, callback: pl.Callback, metrics: list[float]) -> None:
        self.callback, self.module = callback, Bare(metrics)
        self.loader = DataLoader(rows(), batch_size=batch_size)

    def fit(self, **options: Any) -> pl.Trainer:
        """Train."""
        return fit(copy.deepcopy(self.callback), self.module, self.loader, **options)


def test_a_library_trains_with_the_batch_size_in_the_same_trial(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with callback.run() as run:
        library = Library(run.batch_size, run.callback, [0.5, 1.0])
        assert run.result is None
        library.fit()
    trial = only_trial(client, callback.job.job_id_prefix)
    assert (run.batch_size, library.module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})
    assert run.result is not None
    assert (run.result.converged, trial.converged, trial.current_epoch) == (True, True, 2)
    assert (trial.energy, trial.time) == (20.0, 2.0)


def test_the_next_block_is_the_next_run(callback: ZeusBSOCallback, client: BsoClient) -> None:
    sizes = []
    for _ in range(3):
        with callback.run() as run:
            Library(run.batch_size, run.callback, [1.0]).fit()
        sizes.append(run.batch_size)
    assert sizes == [16, 8, 32]


def test_each_block_keeps_its_own_verdict(callback: ZeusBSOCallback) -> None:
    runs = []
    for metric in (1.25, 1.5, 1.75):
        with callback.run() as run:
            Library(run.batch_size, run.callback, [metric]).fit()
        runs.append(run)
    assert [str(run.result and run.result.message).split()[1] for run in runs] == ["1.25", "1.5", "1.75"]


def test_copies_with_fits_of_their_own_keep_their_own_verdicts(callback: ZeusBSOCallback) -> None:
    copies = [copy.deepcopy(callback), copy.deepcopy(callback)]
    for each, metric in zip(copies, (1.25, 1.5), strict=True):
        fit(each, Bare([metric]), DataLoader(rows(), batch_size=OLD_SIZE))
    assert [(each.trial_number, each.batch_size) for each in (*copies, callback)] == [(1, 16), (2, 8), (2, 8)]


def test_a_callback_knows_the_verdict_of_a_fit_with_its_copy(callback: ZeusBSOCallback) -> None:
    library = Library(OLD_SIZE, callback, [1.0])
    library.fit()
    assert library.module.sizes_seen == {FIRST_SIZE}
    assert callback.result is not None
    assert (callback.result.converged, callback.trial_number, callback.batch_size) == (True, 1, FIRST_SIZE)


def test_a_copy_measures_with_the_same_monitor(server: Server) -> None:
    monitor = ScriptedMonitor()
    original = ZeusBSOCallback(server.url, job(), energy_monitor=monitor, batch_arg_name=["a"])
    copied = copy.deepcopy(original)
    assert copied.energy_monitor is monitor
    assert copied.batch_arg_name is not original.batch_arg_name


def test_a_failed_run_raises_out_of_the_block(callback: ZeusBSOCallback) -> None:
    with pytest.raises(ZeusBSOTrainFailError), callback.run() as run:
        Library(run.batch_size, run.callback, [0.5] * 10).fit()
    assert run.result is not None
    assert run.result.reason == "max_epochs"


def test_a_loader_with_another_batch_size_is_refused(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.raises(MisconfigurationException, match=r"did not reach.*run\.batch_size"), callback.run() as run:
        Library(OLD_SIZE, run.callback, [1.0]).fit()
    assert "did not reach" in str(only_trial(client, callback.job.job_id_prefix).outcome)


def test_a_block_without_a_fit_ends_the_trial(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with callback.run():
        assert only_trial(client, callback.job.job_id_prefix).status == "Dispatched"
    assert only_trial(client, callback.job.job_id_prefix).outcome == "the with block ended without a fit"


def test_an_error_before_the_fit_ends_the_trial(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with pytest.raises(KeyError), callback.run():
        raise KeyError("column")
    assert only_trial(client, callback.job.job_id_prefix).outcome == "KeyError: 'column'"


def test_a_second_fit_in_a_block_is_not_reported(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with callback.run() as run:
        library = Library(run.batch_size, run.callback, [1.0, 0.5, 0.5])
        library.fit()
        with pytest.warns(UserWarning, match="off in this fit.*Give each fit a with block of its own"):
            assert library.fit(max_epochs=2).current_epoch == 2
    assert run.result is not None
    assert (run.result.converged, only_trial(client, callback.job.job_id_prefix).current_epoch) == (True, 1)


def test_a_fit_after_the_block_asks_for_itself(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with callback.run() as run:
        Library(run.batch_size, run.callback, [1.0]).fit()
    library = Library(OLD_SIZE, callback, [1.0])
    library.fit()
    assert library.module.sizes_seen == {8}
    assert number_of_trials(client, callback.job.job_id_prefix) == 2


def test_the_fit_of_a_tuner_comes_before_that_of_the_run(callback: ZeusBSOCallback, client: BsoClient) -> None:
    class Tuned(Bare):
        learning_rate = 1e-3

    with callback.run() as run:
        module, loader = Tuned(repeat(1.0)), DataLoader(rows(), batch_size=run.batch_size)
        running = trainer(run.callback)
        Tuner(running).lr_find(module, loader, num_training=8)
        running.fit(module, loader)
    assert run.result is not None
    assert only_trial(client, callback.job.job_id_prefix).converged


def test_without_a_server_it_gives_the_default(client: BsoClient) -> None:
    callback = ZeusBSOCallback(job=job())
    with callback.run() as run:
        library = Library(run.batch_size, run.callback, [0.5])
        library.fit(max_epochs=1)
    assert (run.batch_size, run.result, library.module.sizes_seen) == (FIRST_SIZE, None, {FIRST_SIZE})


def test_without_an_answer_it_may_fall_back_to_the_default(server: Server, client: BsoClient) -> None:
    fields = job()
    callback = ZeusBSOCallback(
        f"http://127.0.0.1:{free_port()}", fields, energy_monitor=ScriptedMonitor(), fallback_to_default=True
    )
    with callback.run() as run:
        callback.server_url = server.url  # the server is back before the fit
        Library(run.batch_size, run.callback, [0.5]).fit(max_epochs=1)
    assert (run.batch_size, run.result) == (FIRST_SIZE, None)
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


def test_without_an_answer_at_the_fit_the_batch_size_stays(server: Server, client: BsoClient) -> None:
    fields = job()
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), fallback_to_default=True)
    for metric in (1.0, 0.5):
        with callback.run() as run:
            library = Library(run.batch_size, run.callback, [metric])
            if metric < 1.0:
                callback.server_url = library.callback.server_url = f"http://127.0.0.1:{free_port()}"
            library.fit(max_epochs=1)
    assert (run.batch_size, run.result, library.module.sizes_seen) == (8, None, {8})


def test_an_ask_that_fails_at_the_fit_ends_the_trial(callback: ZeusBSOCallback, client: BsoClient) -> None:
    reachable = callback.server_url
    with pytest.raises(ServerUnreachable), callback.run() as run:
        callback.server_url = f"http://127.0.0.1:{free_port()}"
        try:
            Library(run.batch_size, run.callback, [1.0]).fit()
        finally:
            callback.server_url = reachable
    assert "ServerUnreachable" in str(only_trial(client, callback.job.job_id_prefix).outcome)


def test_the_job_is_that_of_the_machine(server: Server, client: BsoClient) -> None:
    fields = job(max_power=None, number_of_gpus=None, gpu_model=None)
    with ZeusBSOCallback(server.url, fields).run() as run:
        Library(run.batch_size, run.callback, [1.0]).fit()
    assert only_trial(client, fields["job_id_prefix"]).converged
    (listing,) = (each for each in client.list_jobs().jobs if each.job_id.startswith(fields["job_id_prefix"]))
    assert client.describe(listing.job_id).spec.gpu_model == "cpu"


def test_a_fit_on_other_devices_is_refused(server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, "NVIDIA A40", "NVIDIA A40")
    fields = job(max_power=None, number_of_gpus=None, gpu_model=None)
    with (
        pytest.raises(MisconfigurationException, match=r"a run on 2 x NVIDIA A40, but the fit runs on 1 x cpu\. Give"),
        ZeusBSOCallback(server.url, fields).run() as run,
    ):
        Library(run.batch_size, run.callback, [1.0]).fit()
    assert "the fit runs on 1 x cpu" in str(only_trial(client, fields["job_id_prefix"]).outcome)
    fake_nvml.forget(monkeypatch)


def test_gpus_that_cannot_be_measured_are_refused_before_a_trial(server: Server, client: BsoClient) -> None:
    fields = job()
    with pytest.raises(EnergyUnavailable), ZeusBSOCallback(server.url, fields).run(gpu_indices=[0]):
        pass
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


def test_gradient_accumulation_is_refused(server: Server) -> None:
    callback = ZeusBSOCallback(server.url, job(), max_device_batch_size=8, accumulate="auto")
    with pytest.raises(MisconfigurationException, match="accumulate='auto' exclude each other"), callback.run():
        pass


def test_a_probe_is_not_made(server: Server) -> None:
    fields = job(policy="gp-ucb")
    callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), probe="auto")
    with callback.run() as run, pytest.warns(UserWarning, match="No probe of batch sizes: the program sets"):
        Library(run.batch_size, run.callback, [1.0]).fit()


def test_the_processes_that_a_trainer_launches_have_the_same_run(server: Server, client: BsoClient) -> None:
    fields = job()
    done = subprocess.run(
        [sys.executable, "-m", "tests.lightning.early_process", server.url, json.dumps(fields)],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = sorted(line for line in done.stdout.splitlines() if line.startswith("rank"))
    assert lines == [f"rank {rank}: batch size {FIRST_SIZE // 2}, converged True" for rank in (0, 1)]
    assert only_trial(client, fields["job_id_prefix"]).converged


def test_processes_that_a_trainer_forks_have_the_same_run(callback: ZeusBSOCallback, client: BsoClient) -> None:
    with callback.run() as run:
        loader = DataLoader(rows(), batch_size=run.batch_size // 2)
        trainer(run.callback, devices=2, strategy="ddp_fork").fit(Bare([1.0]), loader)
    assert only_trial(client, callback.job.job_id_prefix).converged


@pytest.mark.parametrize(
    "variables",
    [
        {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"},
        {"LOCAL_RANK": "1"},
        {"LOCAL_RANK": "0", "WORLD_SIZE": "2"},  # after a fit that has launched another rank
    ],
)
def test_processes_that_ask_side_by_side_need_a_name_for_the_run(
    callback: ZeusBSOCallback, client: BsoClient, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(MisconfigurationException, match=r"Give ZeusBSOCallback\(…\) a run_id"), callback.run():
        pass
    assert number_of_trials(client, callback.job.job_id_prefix) == 0


def test_with_a_name_processes_that_ask_side_by_side_have_the_same_run(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    fields = job()

    def training(_rank: int) -> dict[str, Any]:
        callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor(), run_id="night")
        with callback.run() as run:
            loader = DataLoader(rows(), batch_size=run.batch_size // 2)
            trainer(run.callback, devices=2, strategy="ddp").fit(Bare([1.0]), loader)
        assert run.result is not None
        return {"converged": run.result.converged, "batches": ROWS // run.batch_size}

    ranks = run_ranks(tmp_path, training)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    assert [rank.result for rank in ranks] == [{"converged": True, "batches": ROWS // FIRST_SIZE}] * 2
    assert only_trial(client, fields["job_id_prefix"]).converged
