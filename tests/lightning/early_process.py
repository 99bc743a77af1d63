"""A training that asks for its batch size before it creates its module, on two devices.

    python -m tests.lightning.early_process URL JOB_AS_JSON

Each of its processes prints its rank and the batch size that its loader has.
"""

import json
import os
import sys

from torch.utils.data import DataLoader

from lightning_bso import ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor
from tests.lightning.training_process import write_line
from tests.lightning.trainings import Bare, rows, trainer

if __name__ == "__main__":
    url, job = sys.argv[1:]
    with ZeusBSOCallback(url, json.loads(job), energy_monitor=ScriptedMonitor()).run() as run:
        loader = DataLoader(rows(), batch_size=run.batch_size // 2)
        trainer(run.callback, devices=2, strategy="ddp").fit(Bare([1.0]), loader)
    write_line(f"rank {os.environ['LOCAL_RANK']}: batch size {loader.batch_size}, converged {run.result.converged}")
