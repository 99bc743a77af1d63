"""A script with BSOLightningCLI in its own process: python -m tests.lightning.cli_process fit …

It prints "epoch N" before each epoch, and then waits for a line of standard input. Its metric stays at 0.5.
"""

import signal

from lightning_bso import BSOLightningCLI
from tests.lightning.training_process import OneLineAnEpoch
from tests.lightning.trainings import Module


class Launched(Module):
    """A module without arguments."""

    def __init__(self) -> None:
        super().__init__()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts its processes with it ignored
    BSOLightningCLI(Launched, save_config_callback=None, trainer_defaults={"callbacks": OneLineAnEpoch()})
