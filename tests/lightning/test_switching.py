"""When the callback is on or off, how it is printed and pickled, and which meter it uses."""

import copy
import pickle
from typing import Any

import pytest
import torch

import lightning_bso
from lightning_bso import BsoClient, JobSpec, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial
from tests.lightning.trainings import OLD_SIZE, Module, fit, trainer
from tests.servers import Server


def test_without_a_server_it_is_off(caplog: pytest.LogCaptureFixture) -> None:
    module = Module()
    running = fit(ZeusBSOCallback(None, job()), module, max_epochs=1)
    assert running.state.finished
    assert module.sizes_seen == {OLD_SIZE}
    assert "ZeusBSOCallback is off: no server_url is given" in caplog.text


def test_in_a_fast_dev_run_it_is_off(callback: ZeusBSOCallback, client: BsoClient) -> None:
    module = Module()
    assert fit(callback, module, fast_dev_run=True).state.finished
    assert module.sizes_seen == {OLD_SIZE}
    assert number_of_trials(client, callback.job.job_id_prefix) == 0


def test_the_environment_may_name_the_server(
    server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", server.url)
    fields = job()
    fit(ZeusBSOCallback(None, fields, energy_monitor=ScriptedMonitor()), Module([1.0]))
    assert only_trial(client, fields["job_id_prefix"]).converged


def test_it_is_switched_off_after_a_run(
    callback: ZeusBSOCallback, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(callback, Module([1.0]))
    module = Module()
    fit(callback, module, fast_dev_run=True)
    assert (callback.trial_number, callback.result, module.sizes_seen) == (None, None, {OLD_SIZE})
    assert number_of_trials(client, callback.job.job_id_prefix) == 1


def test_other_stages_than_fit_need_no_server() -> None:
    callback = ZeusBSOCallback("http://127.0.0.1:9", job())
    trainer(callback).validate(Module([0.5]), verbose=False)


def test_creating_it_needs_no_server_and_does_not_look_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        raise AssertionError("looked for GPUs")

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    callback = ZeusBSOCallback("http://127.0.0.1:9", job())
    assert callback.job.default_batch_size == 16


def test_a_job_is_a_spec_or_a_dict_of_one(server: Server) -> None:
    fields = job()
    assert ZeusBSOCallback(server.url, fields).job == ZeusBSOCallback(server.url, JobSpec(**fields)).job


def test_before_a_fit_it_can_be_printed_copied_and_pickled(server: Server) -> None:
    callback = ZeusBSOCallback(server.url, job(), "val_f1", token="s3cret", run_id="run", batch_arg_name="size")
    running = trainer(callback)
    assert "ZeusBSOCallback" in repr(running.callbacks)
    for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        assert vars(twin) == vars(callback)


def test_after_a_fit_a_copy_on_disk_holds_no_run_and_no_token_of_the_environment(
    guarded: tuple[Server, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, token = guarded
    monkeypatch.setenv("ZEUS_BSO_TOKEN", token)
    callback = ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor())
    fit(callback, Module([1.0]))
    on_disk = pickle.dumps(callback)
    assert token.encode() not in on_disk
    loaded = pickle.loads(on_disk)
    assert (loaded.trial_number, loaded.result) == (None, None)
    fit(loaded, Module([1.0]))
    assert (callback.trial_number, loaded.trial_number) == (1, 2)


def test_its_name_is_the_packages() -> None:
    assert lightning_bso.ZeusBSOCallback is ZeusBSOCallback


def test_a_training_on_the_cpu_is_not_charged_for_the_gpus_of_its_machine(
    server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    fields = job(max_power=None, gpu_model=None, number_of_gpus=None)
    fit(ZeusBSOCallback(server.url, fields), Module([1.0]))
    assert only_trial(client, fields["job_id_prefix"]).energy_source == "estimated"


def test_an_estimate_is_on_record_as_one(server: Server, client: BsoClient) -> None:
    fields: dict[str, Any] = job(max_power=None, gpu_model=None, number_of_gpus=None)
    fit(ZeusBSOCallback(server.url, fields), Module([1.0]))
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.energy_source, stored.converged) == ("estimated", True)
    assert stored.time > 0
    assert stored.energy > 0
