"""The recurring training of digits without Lightning: a plain PyTorch loop around `BatchSizeOptimizer`.

Start a server (`make serve`), then launch this repeatedly:

    python examples/plain_pytorch.py
"""

import argparse
import logging

import torch
from lightning_digits import JOB, Classifier, Digits
from torch import nn

from lightning_bso import BatchSizeOptimizer, ZeusBSOTrainFailError


def train(server_url: str) -> str:
    """Train one recurrence, and return the server's message. Raises ZeusBSOTrainFailError if it does not converge."""
    job = JOB.model_copy(update={"job_id_prefix": "digits-plain"})
    with BatchSizeOptimizer(server_url=server_url, job=job) as bso:
        data = Digits(bso.get_batch_size())
        model = Classifier().layers
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        (val_images, val_labels) = data.val_data.tensors

        bso.on_train_begin()
        while not bso.training_finished:
            for images, labels in data.train_dataloader():
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = (model(val_images).argmax(1) == val_labels).float().mean().item()
            bso.on_evaluate(accuracy)
    return bso.result.message if bso.result else "ended without a verdict"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server-url", default="http://127.0.0.1:8000")
    try:
        print(train(parser.parse_args().server_url))
    except ZeusBSOTrainFailError as failure:
        raise SystemExit(f"Failed: {failure}") from None
