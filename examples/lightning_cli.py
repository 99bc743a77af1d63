"""The digits under LightningCLI: the batch size picked by the optimizer, all of it said in a YAML file.

Start a server (`make serve`), then launch this again and again:

    python examples/lightning_cli.py fit --config examples/lightning_cli.yaml --bso.server_url http://127.0.0.1:8000

Without the address it is a plain training with the batch size in `lightning_digits.py`.
"""

from lightning_digits import Classifier, Digits

from lightning_bso import BSOLightningCLI

if __name__ == "__main__":
    BSOLightningCLI(Classifier, Digits, save_config_kwargs={"overwrite": True})
