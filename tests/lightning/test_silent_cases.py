"""If Lightning would silently train with the old batch size, the fit stops and the trial ends without a cost."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, Subset

from lightning_bso import BsoClient, ZeusBSOCallback, ZeusBSOTrainFailError
from tests.client.jobs import ScriptedMonitor, only_trial
from tests.lightning.trainings import FIRST_SIZE, Bare, Data, Module, fit, rows
from tests.servers import Server


class BuiltInSetup(Data):
    """Builds its loader before the callback can set the batch size."""

    def setup(self, stage: str) -> None:
        self.loader = super().train_dataloader()

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader


class FixedSize(Data):
    """Has the attribute, but does not use it."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=4)


class WithoutAttribute(Data):
    """Has a constant batch size, and no attribute."""

    def __init__(self) -> None:
        super().__init__()
        del self.batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(rows(), batch_size=4)


class BuiltInInit(Module):
    """Builds its loader in `__init__`."""

    def __init__(self) -> None:
        super().__init__()
        self.loader = super().train_dataloader()

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader


@pytest.mark.parametrize(
    ("module", "data"),
    [
        (Bare, [BuiltInSetup]),
        (Bare, [FixedSize]),
        (BuiltInInit, []),
        (Module, [WithoutAttribute]),  # the module's attribute is set, the datamodule's loader is used
    ],
    ids=["loader built in setup", "fixed size", "loader built in init", "attribute elsewhere"],
)
def test_a_batch_size_that_did_not_arrive_stops_the_fit_and_is_not_charged(
    callback: ZeusBSOCallback, server: Server, client: BsoClient, module: type, data: list[type]
) -> None:
    fitted = module()
    with pytest.raises(MisconfigurationException, match=r"batch size 16 did not reach the train loader, which has 4"):
        fit(callback, fitted, *(part() for part in data))
    assert fitted.sizes_seen == set()
    stored = only_trial(client, callback.job.job_id_prefix)
    assert (stored.status, stored.energy, stored.time, stored.converged) == ("Failed", 0.0, 0.0, None)
    assert "did not reach the train loader" in (stored.outcome or "")
    again = ZeusBSOCallback(server.url, callback.job, energy_monitor=ScriptedMonitor())
    fit(again, Module([1.0]))
    assert again.batch_size == FIRST_SIZE  # it does not count as explored


def test_a_batch_larger_than_the_data_ends_the_trial_with_what_happened(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    ten_rows = Subset(rows(), range(10))
    with pytest.raises(MisconfigurationException, match="drop_last"):
        fit(callback, Bare(), DataLoader(ten_rows, batch_size=4, drop_last=True))
    stored = only_trial(client, callback.job.job_id_prefix)
    assert stored.status == "Failed"
    assert stored.outcome == "no training step was run"


def test_validations_without_data_stop_the_fit_before_it_is_charged(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    class NoData(Module):
        def val_dataloader(self) -> Any:
            return []

    with pytest.raises(MisconfigurationException, match="Give it validation data"):
        fit(callback, NoData())
    assert only_trial(client, callback.job.job_id_prefix).energy == 0.0


def test_a_module_that_steps_its_own_optimizer_has_trained(callback: ZeusBSOCallback, client: BsoClient) -> None:
    class ByHand(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Sequence[torch.Tensor], index: int) -> torch.Tensor:
            loss = super().training_step(batch, index)
            self.manual_backward(loss)
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.step()  # Lightning counts no step
            optimizer.zero_grad()
            return loss

    fit(callback, ByHand(), max_epochs=1)
    assert only_trial(client, callback.job.job_id_prefix).outcome == (
        "fit ended after 1 epoch and 4 batches without a verdict"
    )


class FixedBatches:
    """A batch sampler without a `batch_size` attribute."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1, 2], [3, 4, 5]])

    def __len__(self) -> int:
        return 2


def test_a_loader_without_a_visible_batch_size_gives_a_warning(callback: ZeusBSOCallback) -> None:
    class Hidden(Data):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_sampler=FixedBatches())

    with (
        pytest.raises(ZeusBSOTrainFailError),  # this training never reaches its target
        pytest.warns(UserWarning, match=f"cannot see the batch size.*{FIRST_SIZE}"),
    ):
        fit(callback, Bare(), Hidden())


def test_a_loader_that_keeps_its_own_size_beside_one_that_does_not_is_named(callback: ZeusBSOCallback) -> None:
    class Mixed(Module):
        def __init__(self) -> None:
            super().__init__([1.0])

        def train_dataloader(self) -> Any:
            return {"labelled": super().train_dataloader(), "unlabelled": DataLoader(rows(), batch_size=4)}

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return super().training_step(batch["labelled"], index)

    with pytest.warns(UserWarning, match=r"16 did not reach all train loaders: \['unlabelled'\] has 4. If"):
        fit(callback, Mixed())
    assert callback.result is not None
