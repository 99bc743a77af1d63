"""The training of digits under LightningCLI. A YAML file configures the optimizer, which chooses the batch size.

Start a server (`make serve`), then launch this repeatedly:

    python examples/lightning_cli.py fit --config examples/lightning_cli.yaml --bso.server_url http://127.0.0.1:8000

Without the address the optimizer is off, and the training uses the batch size in `lightning_digits.py`.
"""

from lightning_digits import Classifier, Digits

from lightning_bso import BSOLightningCLI

if __name__ == "__main__":
    BSOLightningCLI(Classifier, Digits, save_config_kwargs={"overwrite": True})
