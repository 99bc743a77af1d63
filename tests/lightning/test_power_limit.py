"""The power limit: Zeus' own code in a real Trainer, over GPUs with a fake driver."""

import json
import math
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pynvml
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from zeus.monitor import ZeusMonitor

from lightning_bso import BsoClient, ZeusBSOCallback, ZeusPowerLimitCallback
from tests.client import fake_nvml
from tests.client.fake_nvml import FakeGpus
from tests.client.jobs import job, only_trial
from tests.lightning.ranks import run_ranks
from tests.lightning.trainings import Module, trainer
from tests.servers import Server

STEP_J = {250: 10.0, 200: 8.0, 150: 6.0, 100: 7.0, 225: 9.0}
"""Energy of a step in joules, by the limit in watts."""
VALIDATION_J = 1000.0
CHEAPEST_W = 150
STEPS = 16
"""Steps of an epoch with batches of four."""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGpus]:
    """A GPU with power limits of 100 to 250 W, 225 by default."""
    yield fake_nvml.install(monkeypatch, "NVIDIA A40")
    fake_nvml.forget(monkeypatch)


class Drawing(pl.Callback):
    """Makes the GPUs use the energy of a step at their limit. A validation uses far more."""

    def __init__(self, gpus: FakeGpus) -> None:
        self.gpus = gpus
        self.limits_w: list[int] = []
        """The limit of each step."""

    def on_train_batch_end(self, *_: Any) -> None:
        limits_w = [limit_mw // 1000 for limit_mw in self.gpus.limits_mw]
        self.limits_w.append(limits_w[0])
        self.gpus.use(*(STEP_J[limit_w] for limit_w in limits_w))

    def on_validation_end(self, *_: Any) -> None:
        self.gpus.use(*([VALIDATION_J] * len(self.gpus.names)))


def quick(**options: Any) -> ZeusPowerLimitCallback:
    """Create a callback that minimizes energy alone, and takes few steps."""
    defaults = {"eta_knob": 1.0, "power_limit_step_w": 50, "wait_steps": 0, "warmup_steps": 1, "profile_steps": 2}
    return ZeusPowerLimitCallback(**{**defaults, "energy_monitor": ZeusMonitor(gpu_indices=[0]), **options})


def fit(gpus: FakeGpus, callback: ZeusPowerLimitCallback, *others: pl.Callback, **options: Any) -> Drawing:
    """Fit for two epochs, and return the callback that used the GPUs."""
    drawing = Drawing(gpus)
    trainer(callback, *others, drawing, **{"max_epochs": 2, **options}).fit(Module())
    return drawing


def test_every_limit_is_measured_and_the_cheapest_is_kept_for_the_rest(gpu: FakeGpus) -> None:
    callback = quick()
    limits_w = fit(gpu, callback).limits_w
    assert limits_w[:STEPS] == [250] * 3 + [200] * 3 + [150] * 3 + [100] * 3 + [CHEAPEST_W] * 4
    assert limits_w[STEPS:] == [CHEAPEST_W] * STEPS
    assert callback.power_limit_w == CHEAPEST_W


def test_the_default_limit_is_back_after_the_fit(gpu: FakeGpus) -> None:
    fit(gpu, quick())
    assert gpu.limits_mw == [gpu.default_limit_mw]


def test_a_limit_that_an_administrator_has_set_is_back_after_the_fit(gpu: FakeGpus) -> None:
    gpu.limits_mw = [180_000]
    fit(gpu, quick())
    assert gpu.limits_mw == [180_000]


def test_a_limit_that_is_not_the_default_is_said_with_how_to_reset_it(gpu: FakeGpus) -> None:
    gpu.limits_mw = [150_000]  # as after a process that was killed during its search
    warning = r"GPU 0 has a power limit of 150 W instead of its default of 225 W.*`nvidia-smi -i GPU -pl 225`"
    with pytest.warns(UserWarning, match=warning):
        fit(gpu, quick())


def test_a_gpu_with_its_default_limit_is_not_warned_of(gpu: FakeGpus, recwarn: pytest.WarningsRecorder) -> None:
    fit(gpu, quick())
    assert not [warning for warning in recwarn if "power limit of" in str(warning.message)]


def test_a_driver_that_does_not_report_its_limit_gets_the_default_again(
    gpu: FakeGpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_handle: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerManagementLimit", refuse)
    fit(gpu, quick())
    assert gpu.limits_mw == [gpu.default_limit_mw]


@pytest.mark.parametrize("at_step", [2, 20])  # during the search, and after it
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_the_default_limit_is_back_after_an_error(gpu: FakeGpus, error: BaseException, at_step: int) -> None:
    class Breaks(pl.Callback):
        def on_train_batch_end(self, running: pl.Trainer, *_: Any) -> None:
            if running.global_step == at_step:
                raise error

    monitor = ZeusMonitor(gpu_indices=[0])
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt)):
        fit(gpu, quick(energy_monitor=monitor), Breaks())
    assert gpu.limits_mw == [gpu.default_limit_mw]
    fit(gpu, quick(energy_monitor=monitor))  # the monitor has no open window


def test_validations_are_not_measured(gpu: FakeGpus) -> None:
    callback = quick(profile_steps=3)
    limits_w = fit(gpu, callback, val_check_interval=6, max_epochs=4).limits_w
    assert limits_w[:9] == [250] * 4 + [200] * 2 + [200] * 3  # the validation cuts a measurement short; it is repeated
    assert callback.power_limit_w == CHEAPEST_W


def test_what_was_measured_is_kept_for_the_next_runs_of_that_batch_size(gpu: FakeGpus, tmp_path: Path) -> None:
    fit(gpu, quick(profile_folder=tmp_path / "power"))
    again = quick(profile_folder=tmp_path / "power")
    assert fit(gpu, again).limits_w == [CHEAPEST_W] * 2 * STEPS
    assert again.power_limit_w == CHEAPEST_W
    (stored_file,) = (tmp_path / "power").iterdir()
    assert stored_file.name == "NVIDIA-A40_1x4.json"

    module = Module()
    module.batch_size = 2
    drawing = Drawing(gpu)
    trainer(quick(profile_folder=tmp_path / "power"), drawing, max_epochs=1).fit(module)
    assert drawing.limits_w[0] == 250
    assert len(list((tmp_path / "power").iterdir())) == 2


def test_what_was_measured_serves_every_eta(gpu: FakeGpus, tmp_path: Path) -> None:
    fit(gpu, quick(profile_folder=tmp_path))
    (stored_file,) = tmp_path.iterdir()
    measured = json.loads(stored_file.read_text())
    for measurement in measured["measurements"]:
        measurement["time"] = 1.0 if measurement["power_limit"] == 200 else 2.0
    stored_file.write_text(json.dumps(measured))
    assert set(fit(gpu, quick(profile_folder=tmp_path, eta_knob=0.0)).limits_w) == {200}


def test_a_file_that_cannot_be_read_is_named(gpu: FakeGpus, tmp_path: Path) -> None:
    fit(gpu, quick(profile_folder=tmp_path))
    (stored_file,) = tmp_path.iterdir()
    stored_file.write_text(stored_file.read_text()[:20])
    with pytest.warns(UserWarning, match=r"not changed: ValueError: .*NVIDIA-A40_1x4\.json cannot be read; remove it"):
        assert set(fit(gpu, quick(profile_folder=tmp_path)).limits_w) == {225}


def test_a_file_that_cannot_be_written_costs_the_run_nothing(gpu: FakeGpus, tmp_path: Path) -> None:
    class RemovesTheFolder(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            if (tmp_path / "power").exists():
                (tmp_path / "power").rmdir()

    callback = quick(profile_folder=tmp_path / "power")
    with pytest.warns(UserWarning, match="search for the cheapest power limit ended with an error: FileNotFoundError"):
        limits_w = fit(gpu, callback, RemovesTheFolder()).limits_w
    assert limits_w[-1] == callback.power_limit_w == CHEAPEST_W


def test_without_permission_it_warns_once_and_does_nothing(gpu: FakeGpus) -> None:
    gpu.refuses = lambda _limit_mw: True
    with pytest.warns(UserWarning, match="Power limits are not changed: .*Insufficient Permissions") as warnings:
        drawing = fit(gpu, quick())
    assert [str(warning.message) for warning in warnings if "ower limits" in str(warning.message)][1:] == []
    assert drawing.limits_w == [225] * 2 * STEPS


def test_a_limit_that_is_refused_in_between_ends_the_search_and_not_the_training(gpu: FakeGpus) -> None:
    gpu.refuses = lambda limit_mw: limit_mw == 150_000
    with pytest.warns(UserWarning, match="power limit ended with an error: ZeusGPUNoPermissionError"):
        drawing = fit(gpu, quick())
    assert drawing.limits_w == [250] * 3 + [200] * 3 + [225] * (2 * STEPS - 6)


def test_without_a_gpu_it_warns_once_and_does_nothing() -> None:
    with pytest.warns(UserWarning, match="this training uses no GPU"):
        trainer(ZeusPowerLimitCallback(warmup_steps=1, profile_steps=2), max_epochs=1).fit(Module())


def test_validations_that_are_too_close_are_said_beforehand(gpu: FakeGpus) -> None:
    with pytest.warns(UserWarning, match="takes 51 steps without a validation in between, and there are only 16"):
        drawing = fit(gpu, quick(warmup_steps=10, profile_steps=40))
    assert set(drawing.limits_w) == {225}


def test_beside_the_batch_size_optimizer_the_run_pays_for_what_was_drawn(
    gpu: FakeGpus, server: Server, client: BsoClient
) -> None:
    fields = job(batch_sizes=[2, 4], default_batch_size=4, max_power=None, number_of_gpus=None, gpu_model=None)
    monitor = ZeusMonitor(gpu_indices=[0])
    bso = ZeusBSOCallback(server.url, fields, energy_monitor=monitor)
    drawing = Drawing(gpu)
    trainer(drawing, bso, quick(energy_monitor=monitor)).fit(Module([0.5, 1.0]))
    stored = only_trial(client, fields["job_id_prefix"])
    assert stored.converged
    assert stored.energy == pytest.approx(sum(STEP_J[limit_w] for limit_w in drawing.limits_w) + 2 * VALIDATION_J)
    assert stored.energy_source == "nvml"
    assert len(drawing.limits_w) == 2 * STEPS


def test_a_second_fit_searches_again(gpu: FakeGpus) -> None:
    callback = quick()
    fit(gpu, callback)
    assert fit(gpu, callback).limits_w[:4] == [250, 250, 250, 200]


def test_the_limit_is_logged(gpu: FakeGpus, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    fit(gpu, quick(), logger=logger)
    header, *_ = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    assert "zeus_power_limit/power_limit_w" in header


@pytest.mark.parametrize(
    "options", [{"eta_knob": 1.1}, {"eta_knob": math.nan}, {"profile_steps": 0}, {"power_limit_step_w": 0}]
)
def test_options_out_of_range_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(MisconfigurationException, match=next(iter(options))):
        ZeusPowerLimitCallback(**options)


@pytest.mark.parametrize("denied", [None, 1])
def test_processes_find_one_limit_together_or_none_does(tmp_path: Path, denied: int | None) -> None:
    def training(rank: int) -> dict[str, Any]:
        patch = pytest.MonkeyPatch()
        gpus = fake_nvml.install(patch, "NVIDIA A40", "NVIDIA A40")
        patch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)  # Zeus adds the measurements up on the GPUs
        gpus.refuses = lambda _limit_mw: rank == denied
        callback = quick(energy_monitor=ZeusMonitor(gpu_indices=[rank]), profile_folder=tmp_path / "power")
        limits_mw: list[int] = []

        class Draws(Drawing):
            def on_train_batch_end(self, *_: Any) -> None:
                super().on_train_batch_end()
                limits_mw.append(gpus.limits_mw[rank])

        running = trainer(callback, Draws(gpus), max_epochs=2, devices=2, strategy="ddp")
        running.fit(Module(repeat(0.5)))
        return {"limits_w": [limit_mw // 1000 for limit_mw in limits_mw], "after_mw": gpus.limits_mw[rank]}

    ranks = run_ranks(tmp_path, training)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    steps = 2 * STEPS // 2
    searched = [250] * 3 + [200] * 3
    for rank in ranks:
        assert rank.result["after_mw"] == 225_000
        if denied is None:
            assert rank.result["limits_w"][:6] == searched
            assert rank.result["limits_w"][-1] == CHEAPEST_W
        else:
            assert rank.result["limits_w"] == [225] * steps
    if denied is None:
        (stored_file,) = (tmp_path / "power").iterdir()
        assert stored_file.name == "NVIDIA-A40_2x4.json"
