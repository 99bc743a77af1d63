"""The recurring training of digits without Lightning, in several processes of torch.distributed.

Start a server (`make serve`), then launch this repeatedly:

    torchrun --nproc-per-node 2 examples/pytorch_ddp.py
"""

import argparse
import logging

import torch
from lightning_digits import JOB, Classifier, Digits
from torch import distributed, nn
from torch.utils.data import DataLoader, DistributedSampler

from lightning_bso import BatchSizeOptimizer, TorchRanks, ZeusBSOTrainFailError


def train(server_url: str) -> str:
    """Train one recurrence, and return the server's message. All ranks raise ZeusBSOTrainFailError, or none does."""
    job = JOB.model_copy(update={"job_id_prefix": "digits-ddp"})
    with BatchSizeOptimizer(server_url=server_url, job=job, ranks=TorchRanks()) as bso:
        data = Digits(bso.get_batch_size())
        sampler = DistributedSampler(data.train_data)
        loader = DataLoader(data.train_data, batch_size=data.batch_size // bso.ranks.size, sampler=sampler)
        model = nn.parallel.DistributedDataParallel(Classifier().layers)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        (val_images, val_labels) = data.val_data.tensors

        epoch = 0
        bso.on_train_begin()
        while not bso.training_finished:
            sampler.set_epoch(epoch)
            for images, labels in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimizer.step()
            with torch.no_grad():  # all ranks have the same weights and the same validation data
                accuracy = (model.module(val_images).argmax(1) == val_labels).float().mean().item()
            bso.on_evaluate(accuracy)
            epoch += 1
    return bso.result.message if bso.result else "ended without a verdict"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server-url", default="http://127.0.0.1:8000")
    distributed.init_process_group("gloo")
    try:
        print(f"Rank {distributed.get_rank()}: {train(parser.parse_args().server_url)}")
    except ZeusBSOTrainFailError as failure:
        raise SystemExit(f"Failed: {failure}") from None
    finally:
        distributed.destroy_process_group()
