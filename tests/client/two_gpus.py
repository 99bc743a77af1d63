"""Measures with Zeus' code over two GPUs that are made up; launched by test_zeus_releases.py.

Prints the release of Zeus, what the meter knows of the GPUs, and the joules of a window.
"""

from importlib import metadata
from pathlib import Path

import pynvml
import torch

millijoules = 0

pynvml.nvmlInit = pynvml.nvmlShutdown = lambda: None
pynvml.nvmlDeviceGetCount = lambda: 2
pynvml.nvmlDeviceGetHandleByIndex = lambda index: index
pynvml.nvmlDeviceGetName = lambda _gpu: "Imaginary GPU"
pynvml.nvmlDeviceGetArchitecture = lambda _gpu: pynvml.NVML_DEVICE_ARCH_VOLTA
pynvml.nvmlDeviceGetPowerManagementLimitConstraints = lambda _gpu: [100_000, 250_000]
pynvml.nvmlDeviceGetTotalEnergyConsumption = lambda _gpu: millijoules
pynvml.nvmlSystemGetDriverVersion = lambda: "1"
torch.cuda.is_available = lambda: True
torch.cuda.synchronize = lambda *_: None

import zeus  # noqa: E402 - after the GPUs are there

from lightning_bso.energy import make_meter  # noqa: E402

meter = make_meter(gpu_indices=[0, 1])
meter.begin()
millijoules += 5000
joules = meter.end().energy_j
later = "zeus-later" in Path(zeus.__file__).parts
print(metadata.version("zeus" if later else "zeus-ml"))
machine = meter.machine
print(machine.source, machine.gpu_model, machine.number_of_gpus, machine.max_power_w, joules, sep="|")
