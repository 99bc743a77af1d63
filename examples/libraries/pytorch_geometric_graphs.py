"""A recurring training of PyTorch Geometric. The optimizer chooses how many graphs a batch has.

Start a server (`make serve`), then launch this repeatedly:

    python examples/libraries/pytorch_geometric_graphs.py
    python examples/libraries/pytorch_geometric_graphs.py --data loader

The first gives `fit` a LightningDataset, the second a DataLoader of PyTorch Geometric. The data are made up by
PyTorch Geometric's FakeDataset. The statements and arguments that are marked `# bso` are for the optimizer.
"""

import lightning.pytorch as pl
import torch
from recurrence import print_run, read_arguments
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.data.lightning import LightningDataset
from torch_geometric.datasets import FakeDataset
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GraphSAGE, global_mean_pool

from lightning_bso import JobSpec, ZeusBSOCallback  # bso


class Classifier(pl.LightningModule):
    """Tells the class of a graph."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = GraphSAGE(channels, hidden_channels=32, num_layers=2, out_channels=classes)
        self.sizes_seen: list[int] = []

    def forward(self, graphs: Data) -> torch.Tensor:
        return global_mean_pool(self.layers(graphs.x, graphs.edge_index), graphs.batch)

    def training_step(self, graphs: Data, _: int) -> torch.Tensor:
        self.sizes_seen.append(len(graphs.y))
        return cross_entropy(self(graphs), graphs.y)

    def validation_step(self, graphs: Data, _: int) -> None:
        accuracy = (self(graphs).argmax(1) == graphs.y).float().mean()
        self.log("val_acc", accuracy, batch_size=len(graphs.y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


arguments = read_arguments(__doc__.splitlines()[0], data=["dataset", "loader"])
graphs = FakeDataset(num_graphs=600, avg_num_nodes=20, num_channels=8, num_classes=4)
train_graphs, val_graphs = graphs[:500], graphs[500:]

job = JobSpec(  # bso
    job_id_prefix=f"graphs-{arguments.data}",
    batch_sizes=[16, 32, 64, 128],
    default_batch_size=32,
    target_metric=0.9,
    max_epochs=30,
)
bso = ZeusBSOCallback(arguments.server_url, job, monitor="val_acc", on_fail="stop")  # bso

model = Classifier(graphs.num_features, graphs.num_classes)
trainer = pl.Trainer(
    max_epochs=30,
    accelerator="cpu",
    callbacks=[bso],  # bso
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
if arguments.data == "dataset":
    trainer.fit(model, datamodule=LightningDataset(train_graphs, val_graphs, batch_size=32))
else:
    train_loader = DataLoader(train_graphs, batch_size=32, shuffle=True)
    trainer.fit(model, train_loader, DataLoader(val_graphs, batch_size=100))
print_run(bso.batch_size, model.sizes_seen, bso.result)
