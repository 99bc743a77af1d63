"""Fake GPUs: replaces NVML's functions, which all of Zeus' own code calls."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pynvml
import pytest
import torch
import zeus.device.gpu
from zeus.device.gpu.nvidia import nvml_is_available
from zeus.utils.framework import torch_is_available


@dataclass
class FakeGpus:
    """The GPUs that NVML reports. A test advances their energy counters."""

    names: list[str]
    max_power_mw: int = 250_000
    default_limit_mw: int = 225_000
    energy_mj: list[int] = field(default_factory=list)
    limits_mw: list[int] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    synchronized: list[int] = field(default_factory=list)
    """Indices of the GPUs that were synchronized, in order."""
    refuses: Callable[[int], bool] = lambda _limit_mw: False
    """Whether this process has no permission to set a power limit."""

    def use(self, *joules: float) -> None:
        """Advance the energy counter of each GPU."""
        for index, energy_j in enumerate(joules):
            self.energy_mj[index] += round(energy_j * 1000)

    def handle(self, index: int) -> int:
        """Return the handle of a GPU."""
        if not 0 <= index < len(self.names):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def limit(self, index: int, limit_mw: int) -> None:
        """Set a power limit."""
        if self.refuses(limit_mw):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        self.limits_mw[index] = limit_mw


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> FakeGpus:
    """Give this process GPUs of these models, visible to torch, and make Zeus look for GPUs again."""
    gpus = FakeGpus(list(names), energy_mj=[1_000_000 * (index + 1) for index in range(len(names))])
    gpus.limits_mw = [gpus.default_limit_mw] * len(names)
    gpus.uuids = [f"GPU-8f1{index}ab-d72c-4106-c12f-20bd9faed9f6" for index in range(len(names))]
    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(gpus.names),
        "nvmlDeviceGetHandleByIndex": gpus.handle,
        "nvmlDeviceGetUUID": lambda handle: gpus.uuids[handle],
        "nvmlDeviceGetName": lambda handle: gpus.names[handle],
        "nvmlDeviceGetPowerManagementLimitConstraints": lambda _handle: (100_000, gpus.max_power_mw),
        "nvmlDeviceGetPowerManagementDefaultLimit": lambda _handle: gpus.default_limit_mw,
        "nvmlDeviceGetPowerManagementLimit": lambda handle: gpus.limits_mw[handle],
        "nvmlDeviceSetPowerManagementLimit": gpus.limit,
        "nvmlDeviceGetPersistenceMode": lambda _handle: pynvml.NVML_FEATURE_DISABLED,
        "nvmlDeviceSetPersistenceMode": lambda _handle, _mode: None,
        "nvmlDeviceGetArchitecture": lambda _handle: pynvml.NVML_DEVICE_ARCH_AMPERE,
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: gpus.energy_mj[handle],
    }
    for name, function in functions.items():
        monkeypatch.setattr(pynvml, name, function)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", gpus.synchronized.append)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    forget(monkeypatch)
    return gpus


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Zeus forget its GPUs and look for them again. monkeypatch restores the GPUs after the test."""
    monkeypatch.setattr(zeus.device.gpu, "_gpus", None)
    nvml_is_available.cache_clear()
    torch_is_available.cache_clear()
