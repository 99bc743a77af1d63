"""The meter for machines without an energy counter."""

import hashlib
import threading
import time

import pytest

from lightning_bso import BatchSizeOptimizer, BsoClient
from lightning_bso.energy import EstimatedMeter, Reading
from tests.client.jobs import job, only_trial
from tests.servers import Server


def work(cpu_seconds: float) -> Reading:
    """Use CPU time in this process, and return the meter's reading."""
    meter = EstimatedMeter()
    meter.begin()
    until = time.process_time() + cpu_seconds
    while time.process_time() < until:
        hashlib.sha256(b"work").digest()
    return meter.end()


def test_energy_grows_with_the_work_of_the_cpu() -> None:
    little, much = work(0.02), work(0.2)
    assert 0.2 <= little.energy_j < much.energy_j
    assert much.energy_j == pytest.approx(2.0, rel=0.2)  # 10 W for 0.2 s


def test_waiting_takes_time_and_hardly_any_energy() -> None:
    meter = EstimatedMeter()
    meter.begin()
    threading.Event().wait(0.2)
    reading = meter.end()
    assert reading.time_s >= 0.2
    assert reading.energy_j < 0.5


def test_a_window_does_not_count_what_was_before_it() -> None:
    meter = EstimatedMeter()
    work(0.1)
    meter.begin()
    assert meter.end().energy_j < 0.5


def test_ending_a_window_that_was_not_begun_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="before begin"):
        EstimatedMeter().end()


def test_the_estimate_is_labelled_in_the_log_and_on_the_server(
    server: Server, client: BsoClient, caplog: pytest.LogCaptureFixture
) -> None:
    fields = job(max_power=None, number_of_gpus=None, gpu_model=None)
    bso = BatchSizeOptimizer(server_url=server.url, job=fields)
    bso.get_batch_size()
    bso.on_train_begin()
    bso.on_evaluate(1.0)
    assert "labelled 'estimated'" in caplog.text
    stored = only_trial(client, fields["job_id_prefix"])
    assert stored.energy_source == "estimated"
    assert stored.time > 0
    assert bso.trial is not None
    spec = client.describe(bso.trial.job_id).spec
    assert (spec.gpu_model, spec.number_of_gpus) == ("cpu", 1)
    assert spec.max_power > 0
