"""Measures two fake GPUs with Zeus' code. test_zeus_releases.py launches this script.

It prints the release of Zeus, then the meter's description of the GPUs with the joules of a window.
"""

from importlib import metadata
from pathlib import Path

import pynvml
import torch

millijoules = 0

pynvml.nvmlInit = pynvml.nvmlShutdown = lambda: None
pynvml.nvmlDeviceGetCount = lambda: 2
pynvml.nvmlDeviceGetHandleByIndex = lambda index: index
pynvml.nvmlDeviceGetUUID = lambda index: f"GPU-8f1{index}"
pynvml.nvmlDeviceGetName = lambda _gpu: "Imaginary GPU"
pynvml.nvmlDeviceGetArchitecture = lambda _gpu: pynvml.NVML_DEVICE_ARCH_VOLTA
pynvml.nvmlDeviceGetPowerManagementLimitConstraints = lambda _gpu: [100_000, 250_000]
pynvml.nvmlDeviceGetTotalEnergyConsumption = lambda _gpu: millijoules
pynvml.nvmlSystemGetDriverVersion = lambda: "1"
torch.cuda.is_available = lambda: True
torch.cuda.synchronize = lambda *_: None

import zeus  # noqa: E402 - after the fake GPUs exist

from lightning_bso.energy import make_meter  # noqa: E402

meter = make_meter(gpu_indices=[0, 1])
meter.begin()
millijoules += 5000
joules = meter.end().energy_j
later = "zeus-later" in Path(zeus.__file__).parts
print(metadata.version("zeus" if later else "zeus-ml"))
machine = meter.machine
print(machine.source, machine.gpu_model, machine.number_of_gpus, machine.max_power_w, joules, sep="|")
