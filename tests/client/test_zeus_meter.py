"""The meter for GPUs. Zeus' own code runs from the monitor down to NVML, whose functions are fake."""

import os
import re
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pynvml
import pytest
import torch
from zeus.monitor import ZeusMonitor

from lightning_bso import BatchSizeOptimizer, BsoClient, EnergyUnavailable
from lightning_bso.energy import Machine, ZeusMeter, make_meter
from tests.client import fake_nvml
from tests.client.fake_nvml import FakeGpus
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial, start_run
from tests.servers import Server

UNKNOWN_MACHINE = {"max_power": None, "number_of_gpus": None, "gpu_model": None}


@pytest.fixture
def two_a40(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpus]:
    """Two GPUs of 250 W."""
    yield fake_nvml.install(monkeypatch, "NVIDIA A40", "NVIDIA A40")
    fake_nvml.forget(monkeypatch)


@pytest.fixture
def cuda_without_counters(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that trains on GPUs that Zeus cannot find."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    fake_nvml.forget(monkeypatch)
    yield
    fake_nvml.forget(monkeypatch)


def test_energy_is_what_the_counters_of_all_gpus_have_moved_on_by(two_a40: FakeGpus) -> None:
    meter = make_meter()
    meter.begin()
    two_a40.use(30.0, 12.5)
    reading = meter.end()
    assert reading.energy_j == pytest.approx(42.5)
    assert reading.time_s >= 0
    meter.begin()
    two_a40.use(1.0, 1.0)
    assert meter.end().energy_j == pytest.approx(2.0)


def test_the_machine_is_read_from_the_gpus(two_a40: FakeGpus) -> None:
    meter = make_meter()
    assert meter.machine == Machine("nvml", "NVIDIA A40", 2, 500.0)


def test_a_meter_that_tries_the_counters_warns_of_nothing(two_a40: FakeGpus) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_meter()


def test_only_the_gpus_of_the_run_are_measured(two_a40: FakeGpus) -> None:
    meter = make_meter(gpu_indices=[1])
    assert (meter.machine.number_of_gpus, meter.machine.max_power_w) == (1, 250.0)
    meter.begin()
    two_a40.use(30.0, 12.5)
    assert meter.end().energy_j == pytest.approx(12.5)


def test_a_window_waits_for_the_work_that_is_queued_on_the_gpus(two_a40: FakeGpus) -> None:
    meter = make_meter()
    meter.begin()
    assert two_a40.synchronized == [0, 1]
    two_a40.use(1.0, 1.0)
    meter.end()
    assert two_a40.synchronized == [0, 1, 0, 1]


def test_the_users_own_monitor_is_used(two_a40: FakeGpus) -> None:
    meter = make_meter(ZeusMonitor(gpu_indices=[0]))
    assert (meter.machine.source, meter.machine.number_of_gpus) == ("nvml", 1)


def test_a_window_of_the_users_own_does_not_disturb(two_a40: FakeGpus) -> None:
    monitor = ZeusMonitor()
    monitor.begin_window("training")
    for meter in (make_meter(monitor), make_meter(monitor)):
        meter.begin()
        two_a40.use(1.0, 2.0)
        assert meter.end().energy_j == pytest.approx(3.0)
    assert monitor.end_window("training").total_energy == pytest.approx(6.0)


def test_the_server_learns_machine_energy_and_source(two_a40: FakeGpus, server: Server, client: BsoClient) -> None:
    bso = BatchSizeOptimizer(server_url=server.url, job=job(**UNKNOWN_MACHINE))
    bso.get_batch_size()
    bso.on_train_begin()
    two_a40.use(30.0, 12.5)
    bso.on_evaluate(1.0)
    assert bso.trial is not None
    spec = client.describe(bso.trial.job_id).spec
    assert (spec.max_power, spec.number_of_gpus, spec.gpu_model) == (500.0, 2, "NVIDIA A40")
    stored = only_trial(client, spec.job_id_prefix)
    assert (stored.energy, stored.energy_source) == (pytest.approx(42.5), "nvml")


def test_gpus_of_different_models_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, "NVIDIA A40", "NVIDIA H100")
    with pytest.raises(EnergyUnavailable, match=r"\(NVIDIA A40, NVIDIA H100\).*one model"):
        make_meter()
    assert make_meter(gpu_indices=[1]).machine.gpu_model == "NVIDIA H100"
    fake_nvml.forget(monkeypatch)


def test_a_monitor_without_gpus_is_refused() -> None:
    with pytest.raises(EnergyUnavailable, match="0 J"):
        ZeusMeter(SimpleNamespace(gpu_indices=[]))


@pytest.mark.usefixtures("cuda_without_counters")
def test_gpus_that_zeus_cannot_read_are_an_error_and_take_no_trial(server: Server, client: BsoClient) -> None:
    fields = job()
    bso = BatchSizeOptimizer(server_url=server.url, job=fields)
    with pytest.raises(EnergyUnavailable, match="Zeus cannot read their energy"):
        bso.get_batch_size()
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        ("GPU-8f11ab-d72c-4106-c12f-20bd9faed9f6", 1),
        ("GPU-8f11", 1),
        ("GPU-8f11,GPU-8f10", 1),
        ("GPU-8f10, GPU-8f11", 0),
        ("GPU-8f11,MIG-5a", 1),
        ("GPU-8f11,0", 1),
        ("GPU-8f11,GPU-77", 1),
        ("1", 1),
        ("1,0", 1),
        ("1,-1,0", 1),
        ("1,GPU-8f10", 1),
        ("1,MIG-5a", 1),
        ("1,7", 1),
        ("1,1", 1),
        ("GPU-8f11,GPU-8f11", 1),
    ],
)
def test_the_first_gpu_is_the_one_that_cuda_visible_devices_names_first(
    two_a40: FakeGpus, monkeypatch: pytest.MonkeyPatch, visible: str, index: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = make_meter(gpu_indices=[0])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    meter.begin()
    two_a40.use(30.0, 12.5)
    assert meter.end().energy_j == pytest.approx((30.0, 12.5)[index])


@pytest.mark.parametrize(
    ("visible", "reason"),
    [
        ("MIG-5a", r"MIG devices\. NVML .* does not support measuring"),
        ("MIG-5a,GPU-8f10", r"MIG devices\. NVML .* does not support measuring"),
        ("", "set to an empty string"),
        ("-1", "Invalid Argument"),
        ("GPU-77", "GPU-77"),
        ("GPU-8f1", "GPU-8f1"),
    ],
)
def test_visible_devices_that_name_no_whole_gpu_are_refused_with_zeus_reason_and_a_cure(
    two_a40: FakeGpus, monkeypatch: pytest.MonkeyPatch, visible: str, reason: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cure = re.escape(f"name whole GPUs in CUDA_VISIBLE_DEVICES ({visible!r} now)")
    with pytest.raises(EnergyUnavailable, match=f"{reason}.*{cure}"):
        make_meter(gpu_indices=[0])


def test_a_lost_gpu_does_not_keep_another_from_being_found_by_its_uuid(
    two_a40: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(handle: int) -> str:
        if handle == 0:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return two_a40.uuids[handle]

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", read)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f11")
    assert make_meter(gpu_indices=[0]).machine.gpu_model == "NVIDIA A40"


def test_a_monitor_of_partitions_is_refused_with_zeus_reason(
    two_a40: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5a")
    with pytest.raises(EnergyUnavailable, match=r"watches no GPU.*MIG devices\. NVML .* does not support measuring"):
        make_meter(ZeusMonitor())


def test_the_gpus_of_a_monitor_that_is_not_zeus_are_described_although_they_are_visible_by_uuid(
    two_a40: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f11")
    assert make_meter(ScriptedMonitor()).machine == Machine("nvml", "NVIDIA A40", 1, 250.0)


def test_no_gpu_visible_to_zeus_is_an_error_and_takes_no_trial(
    two_a40: FakeGpus, server: Server, client: BsoClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    fields = job()
    with pytest.raises(EnergyUnavailable):
        BatchSizeOptimizer(server_url=server.url, job=fields).get_batch_size()
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


@pytest.mark.parametrize("monitor", [None, ZeusMonitor], ids=["of our own", "the user's"])
def test_a_counter_that_cannot_be_read_is_an_error_and_takes_no_trial(
    two_a40: FakeGpus,
    server: Server,
    client: BsoClient,
    monkeypatch: pytest.MonkeyPatch,
    monitor: Callable[[], ZeusMonitor] | None,
) -> None:
    def refuse(_handle: int) -> int:  # as NVML does for a GPU partition
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", refuse)
    fields = job()
    with pytest.raises(EnergyUnavailable, match=r"\(ZeusGPUNotSupportedError.*MIG.*vGPU.*older cards.*whole GPUs"):
        BatchSizeOptimizer(monitor and monitor(), server.url, fields).get_batch_size()
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


def test_a_monitor_that_zeus_does_not_know_works_if_the_job_names_the_machine(
    server: Server, client: BsoClient
) -> None:
    fields = job(max_power=321.0, gpu_model="TPU", number_of_gpus=None)
    start_run(server.url, ScriptedMonitor([7.0]), job=fields).on_evaluate(1.0)
    stored = only_trial(client, fields["job_id_prefix"])
    assert (stored.energy, stored.energy_source) == (7.0, "estimated")


@pytest.mark.parametrize("missing", ["max_power", "gpu_model"])
def test_a_machine_that_nobody_names_is_an_error_and_takes_no_trial(
    server: Server, client: BsoClient, missing: str
) -> None:
    fields = job(**{missing: None})
    with pytest.raises(EnergyUnavailable, match=r"max_power.*gpu_model"):
        start_run(server.url, job=fields)
    assert number_of_trials(client, fields["job_id_prefix"]) == 0
