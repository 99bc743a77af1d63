"""A training with Zeus' own client: zeus_training.py URL RECURRENCES. test_zeus_client.py launches this script.

The GPU is fake: the script replaces the functions of NVML that Zeus calls. All other code is Zeus'. It prints one line
per launch: the batch size, and whether the training converged.
"""

import sys

import pynvml
import torch

millijoules = 0


def _total_energy(_gpu: int) -> int:
    return millijoules


pynvml.nvmlInit = pynvml.nvmlShutdown = lambda: None
pynvml.nvmlDeviceGetCount = lambda: 1
pynvml.nvmlDeviceGetHandleByIndex = lambda index: index
pynvml.nvmlDeviceGetName = lambda _gpu: "Imaginary GPU"
pynvml.nvmlDeviceGetArchitecture = lambda _gpu: pynvml.NVML_DEVICE_ARCH_VOLTA
pynvml.nvmlDeviceGetPowerManagementLimitConstraints = lambda _gpu: [100_000, 250_000]
pynvml.nvmlDeviceGetTotalEnergyConsumption = _total_energy
torch.cuda.is_available = lambda: True
torch.cuda.synchronize = lambda *_: None

from zeus.monitor import ZeusMonitor  # noqa: E402 - after the fake GPU exists
from zeus.optimizer.batch_size import BatchSizeOptimizer, JobSpec  # noqa: E402

EPOCHS_NEEDED = {32: 2, 64: 3, 128: 9}
JOULES_PER_EPOCH = {32: 30, 64: 25, 128: 20}

for _ in range(int(sys.argv[2])):
    optimizer = BatchSizeOptimizer(
        monitor=ZeusMonitor(gpu_indices=[0]),
        server_url=sys.argv[1],
        job=JobSpec(
            job_id="imaginary-1",
            job_id_prefix="imaginary",
            batch_sizes=[32, 64, 128],
            default_batch_size=64,
            eta_knob=1.0,
            beta_knob=None,
            max_epochs=5,
            mab_seed=1,
        ),
    )
    batch_size = optimizer.get_batch_size()
    optimizer.on_train_begin()
    outcome = "nothing"
    for epoch in range(1, 6):
        millijoules += 1000 * JOULES_PER_EPOCH[batch_size]
        try:
            optimizer.on_evaluate(1.0 if epoch >= EPOCHS_NEEDED[batch_size] else 0.0)
        except Exception as error:
            outcome = type(error).__name__
            break
        if optimizer.training_finished:
            outcome = "converged"
            break
    print(batch_size, outcome, flush=True)
