"""A fit that resumes from a checkpoint resumes its own trial, or raises an error that says why it cannot."""

from collections.abc import Iterator
from contextlib import suppress
from inspect import signature
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_bso import BatchSizeOptimizer, BsoClient, BSOError, ZeusBSOCallback, ZeusBSOTrainFailError
from lightning_bso.ranks import Ranks
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial, start_run, stored_trial
from tests.databases import free_port
from tests.lightning.trainings import Module, reported_epochs, trainer
from tests.servers import Server


class Paused(Exception):
    """Ends a fit as if its process had been killed: the callback does not notice it."""


class InThreeEpochs(Module):
    """Converges in its third epoch.

    Its metric depends on the epoch, because Lightning 2.4 repeats the validation that a checkpoint was saved in.
    """

    def on_validation_epoch_end(self) -> None:
        self.log("val_acc", (0.1, 0.2, 1.0)[self.trainer.current_epoch])


class Pausing(InThreeEpochs):
    """Stops like a killed process after two epochs."""

    def on_train_epoch_start(self) -> None:
        if self.trainer.current_epoch == 2:
            for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, ZeusBSOCallback):
                    callback._run = None
            raise Paused


def interrupted(module: Module, folder: Path, *callbacks: pl.Callback, error: type[Exception] = Paused) -> str:
    """Fit a module until it raises an error, and return the path of the checkpoint."""
    saving = ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=False)
    with pytest.raises(error):
        trainer(*callbacks, saving, enable_checkpointing=True).fit(module)
    return saving.last_model_path


def paused(folder: Path, *callbacks: pl.Callback) -> str:
    """Fit two epochs, and return the path of the checkpoint."""
    return interrupted(Pausing(), folder, *callbacks)


def resumed(callback: ZeusBSOCallback, path: str) -> None:
    """Resume from a checkpoint, and converge."""
    trainer(callback).fit(InThreeEpochs(), ckpt_path=path)


def other(callback: ZeusBSOCallback, **options: Any) -> ZeusBSOCallback:
    """Create another process's callback for the same job."""
    return ZeusBSOCallback(callback.server_url, **{"job": callback.job, "energy_monitor": ScriptedMonitor()} | options)


def test_the_checkpoint_leads_to_its_trial_and_its_totals(
    callback: ZeusBSOCallback, client: BsoClient, server: Server, tmp_path: Path
) -> None:
    path = paused(tmp_path, callback)
    second = other(callback)
    resumed(second, path)
    trial = only_trial(client, callback.job.job_id_prefix)
    assert (trial.converged, trial.current_epoch) == (True, 3)
    assert trial.energy >= 30.0
    assert second.trial_number == 1
    assert list(dict.fromkeys(reported_epochs(server, callback.job.job_id_prefix))) == [1, 2, 3]


def test_an_error_about_a_checkpoint_that_lightning_found_by_itself_names_the_file_and_the_cure(
    callback: ZeusBSOCallback, tmp_path: Path
) -> None:
    path = Path(paused(tmp_path / "run", callback))
    resumed(other(callback), str(path))
    path.rename(tmp_path / "hpc_ckpt_1.ckpt")  # Slurm's preemption leaves one
    with pytest.raises(BSOError, match=r"has ended already.*hpc_ckpt_1\.ckpt by itself.*remove the file"):
        trainer(other(callback), default_root_dir=tmp_path).fit(Module([1.0]), ckpt_path="hpc")


def test_the_error_about_a_left_over_checkpoint_of_another_training_names_the_file_too(
    callback: ZeusBSOCallback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(paused(tmp_path / "run")).rename(tmp_path / "hpc_ckpt_3.ckpt")
    for name, value in {"NTASKS": "1", "JOB_NAME": "nightly", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    with pytest.raises(
        MisconfigurationException, match=r"without the batch-size optimizer.*hpc_ckpt_3\.ckpt by itself"
    ):
        trainer(callback, default_root_dir=tmp_path).fit(Module([1.0]))


def test_a_checkpoint_holds_what_was_used_since_the_last_report(server: Server, client: BsoClient) -> None:
    bso = start_run(server.url)
    bso.on_evaluate(0.5)
    state = bso.state_dict()
    assert (state["energy_j"], state["time_s"]) == (20.0, 2.0)
    bso.on_evaluate(1.0)
    assert stored_trial(client, bso).energy == 30.0


def test_a_checkpoint_older_than_the_last_report_takes_nothing_back(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    path = paused(tmp_path, callback)
    with start_run(callback.server_url, job=callback.job, run_id=run_id_of(path)) as late:
        late.on_evaluate(0.3, 2)
        late._trial = None  # as if its process had been killed
    reported = only_trial(client, callback.job.job_id_prefix).energy
    resumed(other(callback), path)
    assert only_trial(client, callback.job.job_id_prefix).energy >= reported + 10.0


def run_id_of(path: str) -> str:
    """Return the name of a checkpoint's run."""
    return str(torch.load(path, weights_only=True)["callbacks"]["ZeusBSOCallback"]["run_id"])


@pytest.fixture
def _no_new_trial(callback: ZeusBSOCallback, client: BsoClient) -> Iterator[None]:
    yield
    assert number_of_trials(client, callback.job.job_id_prefix) == 0


@pytest.mark.usefixtures("_no_new_trial")
def test_weights_alone_are_refused(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    weights = ModelCheckpoint(tmp_path, save_last=True, save_weights_only=True)
    trainer(weights, enable_checkpointing=True, max_epochs=1).fit(Module())
    with pytest.raises(MisconfigurationException, match=r"holds only weights.*load_from_checkpoint"):
        resumed(callback, weights.last_model_path)


@pytest.mark.usefixtures("_no_new_trial")
def test_a_checkpoint_of_a_training_without_the_optimizer_is_refused(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match="comes from a training without the batch-size optimizer"):
        resumed(callback, paused(tmp_path))


def test_a_checkpoint_of_another_job_is_refused_before_that_has_a_trial(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    path, changed = paused(tmp_path, callback), job()
    with pytest.raises(BSOError, match=r"comes from trial 1 of job .*batch size 16.*load only its weights"):
        resumed(other(callback, job=changed), path)
    assert number_of_trials(client, changed["job_id_prefix"]) == 0


def test_a_checkpoint_under_another_name_is_refused(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    path = paused(tmp_path, callback)
    with pytest.raises(BSOError, match=r"this is run 'another'.*give run_id="):
        resumed(other(callback, run_id="another"), path)
    assert number_of_trials(client, callback.job.job_id_prefix) == 1


def test_a_checkpoint_of_a_run_with_a_verdict_is_refused(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    path = paused(tmp_path, callback)
    resumed(other(callback), path)
    with pytest.raises(BSOError, match=r"has ended already: .*Launch a new run without its checkpoint"):
        resumed(other(callback), path)


def test_a_training_that_broke_goes_on_in_its_trial(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    class Breaking(InThreeEpochs):
        def on_train_epoch_start(self) -> None:
            if self.trainer.current_epoch == 2:
                raise OSError("the disk is full")

    path = interrupted(Breaking(), tmp_path, callback, error=OSError)
    assert only_trial(client, callback.job.job_id_prefix).outcome == "OSError: the disk is full"
    resumed(other(callback), path)
    trial = only_trial(client, callback.job.job_id_prefix)
    assert (trial.converged, trial.current_epoch) == (True, 3)
    assert trial.energy >= 30.0


def test_a_training_that_is_resumed_with_nothing_left_to_train_fails(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    class Preempted(Module):
        def on_train_end(self) -> None:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"max_epochs": 4, "check_val_every_n_epoch": 3, "enable_checkpointing": True}
    fields = job(max_epochs=4)
    saving = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=True)
    first, second = (ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor()) for _ in range(2))
    with suppress(KeyboardInterrupt, SystemExit):  # by the version of Lightning
        trainer(first, saving, **options).fit(Preempted())
    with pytest.raises(ZeusBSOTrainFailError, match="has not reached the target"):
        trainer(second, **options).fit(Module(), ckpt_path=saving.last_model_path)
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.outcome_code, trial.current_epoch) == ("max_epochs", 4)


def test_a_training_that_goes_on_without_another_validation_fails_at_its_last_epoch(
    client: BsoClient, server: Server, tmp_path: Path
) -> None:
    class Interrupted(Module):
        def on_train_epoch_start(self) -> None:
            if self.trainer.current_epoch == 2:
                raise Paused

    options = {"max_epochs": 3, "check_val_every_n_epoch": 2}
    first, second = (
        ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor()) for fields in [job(max_epochs=3)] * 2
    )
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    with pytest.raises(Paused):
        trainer(first, checkpoint, enable_checkpointing=True, **options).fit(Interrupted())
    with pytest.raises(ZeusBSOTrainFailError, match="has not reached the target"):
        trainer(second, **options).fit(Module(), ckpt_path=tmp_path / "last.ckpt")
    trial = only_trial(client, first.job.job_id_prefix)
    assert (trial.outcome_code, trial.current_epoch) == ("max_epochs", 3)


def test_a_training_without_a_server_goes_on_unreported(callback: ZeusBSOCallback, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    unreported = ZeusBSOCallback(nowhere, callback.job, energy_monitor=ScriptedMonitor(), fallback_to_default=True)
    path = paused(tmp_path, unreported)
    second = other(callback)
    module = InThreeEpochs()
    trainer(second, max_epochs=3).fit(module, ckpt_path=path)
    assert (second.trial_number, second.batch_size, module.sizes_seen) == (None, 16, {16})


def test_an_unreported_checkpoint_of_a_job_with_other_batch_sizes_is_refused(
    callback: ZeusBSOCallback, tmp_path: Path
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    unreported = ZeusBSOCallback(nowhere, callback.job, energy_monitor=ScriptedMonitor(), fallback_to_default=True)
    path = paused(tmp_path, unreported)
    changed = job(batch_sizes=[8, 32], default_batch_size=8)
    with pytest.raises(BSOError, match=r"batch size 16, but this job has only 8, 32\. .*load only its weights"):
        resumed(other(callback, job=changed), path)


def test_an_unreported_checkpoint_that_cannot_be_divided_among_the_processes_is_refused(
    server: Server,
) -> None:
    class Three(Ranks):
        """Three identical processes."""

        size = 3

        def gather(self, value: Any) -> list[Any]:
            return [value] * self.size

    state = start_run(f"http://127.0.0.1:{free_port()}", fallback_to_default=True).state_dict()
    bso = BatchSizeOptimizer(ScriptedMonitor(), server.url, job(), ranks=Three())
    with pytest.raises(BSOError, match=r"batch size 16, which cannot be divided among 3 processes"):
        bso.get_batch_size(resumed_from=state)


def test_an_unreported_checkpoint_that_was_not_read_before_the_fit_says_how_to_read_it(
    server: Server,
) -> None:
    fields = job()
    first = start_run(f"http://127.0.0.1:{free_port()}", job=fields, fallback_to_default=True)
    with pytest.raises(BSOError, match=r"fit\(…, weights_only=False\), or get_batch_size\(resumed_from=…\)"):
        start_run(server.url, job=fields).load_state_dict(first.state_dict())


def test_a_training_whose_meter_failed_goes_on_unreported(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    callback.energy_monitor = ScriptedMonitor([10.0])  # the second window fails
    path = paused(tmp_path, callback)
    second = other(callback)
    module = InThreeEpochs()
    trainer(second, max_epochs=3).fit(module, ckpt_path=path)
    assert (second.trial_number, second.batch_size, module.sizes_seen) == (None, 16, {16})
    assert "the energy meter failed" in str(only_trial(client, callback.job.job_id_prefix).outcome)


def test_a_resumed_training_keeps_its_batch_size_when_the_server_does_not_answer(
    server: Server, tmp_path: Path
) -> None:
    fields = job(beta_knob=None)
    with start_run(server.url, job=fields) as first:
        first.on_evaluate(1.0)
    path = paused(tmp_path, ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor()))
    nowhere = f"http://127.0.0.1:{free_port()}"
    second = ZeusBSOCallback(nowhere, fields, energy_monitor=ScriptedMonitor(), fallback_to_default=True)
    trainer(second, max_epochs=3).fit(InThreeEpochs(), ckpt_path=path)
    assert (second.trial_number, second.batch_size) == (None, 8)


def test_a_checkpoint_that_holds_more_than_plain_values_leads_to_its_trial_if_the_fit_trusts_it(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path
) -> None:
    class WithPath(Pausing):
        def __init__(self, data: Path = tmp_path) -> None:
            super().__init__()
            self.save_hyperparameters()

    path = interrupted(WithPath(), tmp_path, callback)
    # Lightning before 2.6 trusts every checkpoint.
    trust = {"weights_only": False} if "weights_only" in signature(pl.Trainer.fit).parameters else {}
    trainer(other(callback)).fit(InThreeEpochs(), ckpt_path=path, **trust)
    assert only_trial(client, callback.job.job_id_prefix).converged


@pytest.mark.parametrize("variable", ["SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"])
def test_a_scheduler_names_the_run_and_each_further_one(
    variable: str, server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "17")
    fields = job()
    names = []
    for _ in range(2):
        interrupted, resumed = start_run(server.url, job=fields), start_run(server.url, job=fields)
        assert interrupted.trial == resumed.trial
        names.append(resumed.run_id)
        resumed.on_evaluate(1.0)
    assert names[0].endswith("-17")
    assert names[1] == f"{names[0]}-2"
    assert number_of_trials(client, fields["job_id_prefix"]) == 2


def test_a_fit_after_one_without_a_verdict_begins_from_nothing(
    server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    fields = job()
    folds = [ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor()) for _ in range(2)]
    trainer(folds[0], max_epochs=2).fit(Module([0.1, 0.2]))
    trainer(folds[1]).fit(Module([1.0]))
    left, second = client.list_trials(str(folds[1].job_id)).trials
    assert (left.run_id, left.outcome_code, left.energy) == ("slurm-17", "left", 20.0)
    assert (second.run_id, second.converged, second.energy, second.current_epoch) == ("slurm-17-2", True, 10.0, 1)


def test_a_fit_without_a_verdict_goes_on_in_its_trial_by_its_checkpoint(
    callback: ZeusBSOCallback, client: BsoClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    saving = ModelCheckpoint(tmp_path, save_last=True)
    trainer(callback, saving, enable_checkpointing=True, max_epochs=2).fit(Module([0.1, 0.2]))
    resumed(other(callback), saving.last_model_path)
    trial = only_trial(client, callback.job.job_id_prefix)
    assert (trial.converged, trial.current_epoch) == (True, 3)


@pytest.mark.parametrize("name", ["daily-retraining-of-resnet50-by-the-vision-team-7f9c2d", "x" * 100, "new\nline"])
def test_a_scheduler_s_name_may_be_long(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = job()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
    first = start_run(server.url, job=fields)
    assert first.trial == start_run(server.url, job=fields).trial
    first.on_evaluate(1.0)
    assert start_run(server.url, job=fields).run_id == f"{first.run_id}-2"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", f"{name}, another")
    assert not start_run(server.url, job=fields).run_id.startswith(first.run_id)


@pytest.mark.parametrize("name", ["", "x" * 65, "new\nline"])
def test_a_name_that_cannot_be_one_is_refused_at_once(name: str, server: Server) -> None:
    with pytest.raises(MisconfigurationException, match="is not a valid run id; give 1 to 64 printable characters"):
        ZeusBSOCallback(server.url, job(), run_id=name)
    with pytest.raises(ValueError, match="is not a valid run id"):
        start_run(server.url, run_id=name)


def test_torchruns_default_is_no_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    fields = job()
    assert start_run(server.url, job=fields).run_id != start_run(server.url, job=fields).run_id


def test_a_training_between_validations_renews_its_lease(
    server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = []
    heartbeat = BsoClient.heartbeat
    monkeypatch.setattr(BsoClient, "heartbeat", lambda *call: beats.append(call) or heartbeat(*call))
    bso = start_run(server.url)
    assert bso.trial is not None
    assert bso.trial.lease_s is not None
    for _ in range(10):
        bso.keep_alive()
    assert beats == []
    bso._outbox._last_contact -= bso.trial.lease_s / 3
    for _ in range(10):
        bso.keep_alive()
    assert len(beats) == 1


def test_a_trainer_renews_the_lease_when_validations_are_far_apart(
    callback: ZeusBSOCallback, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[int] = []
    heartbeat = BsoClient.heartbeat

    class LongSteps(Module):
        def on_train_batch_start(self, batch: Any, index: int) -> None:
            run = callback._run
            assert run is not None
            assert run.trial is not None
            assert run.trial.lease_s is not None
            if index == 1:
                run._outbox._last_contact -= run.trial.lease_s / 3  # as if the previous step had taken this long

    def beat(*call: Any) -> Any:
        beats.append(module.trainer.global_step)
        return heartbeat(*call)

    monkeypatch.setattr(BsoClient, "heartbeat", beat)
    module = LongSteps([0.5, 1.0])
    trainer(callback).fit(module)
    assert beats == [2, 6]
