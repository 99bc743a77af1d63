"""A fit that cannot end in a verdict is refused before it takes a trial. The message says what to do."""

from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from pydantic import ValidationError
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from lightning_bso import BsoClient, ServerRefused, ServerUnreachable, ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job, number_of_trials
from tests.databases import free_port
from tests.lightning.trainings import Bare, Data, Module, fit, rows, trainer
from tests.servers import Server


@pytest.fixture(autouse=True)
def _no_trial_is_taken(callback: ZeusBSOCallback, client: BsoClient) -> Any:
    yield
    assert number_of_trials(client, callback.job.job_id_prefix) == 0
    assert (callback.batch_size, callback.trial_number) == (None, None)


def refused(callback: ZeusBSOCallback, module: pl.LightningModule, *data: Any, message: str, **options: Any) -> None:
    """Fit, and check that the callback refuses the fit with this message."""
    with pytest.raises(MisconfigurationException, match=message):
        fit(callback, module, *data, **options)


def test_a_training_without_the_attribute(callback: ZeusBSOCallback) -> None:
    class NoAttribute(Bare):
        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=4)

    refused(callback, NoAttribute(), message=r"no attribute 'batch_size' on .* Add it.*batch_arg_name")


def test_a_training_with_a_batch_size_of_another_name_gets_the_name_to_give(callback: ZeusBSOCallback) -> None:
    class Named(Bare):
        def __init__(self) -> None:
            super().__init__()
            self.val_batch_size = 2
            self.train_batch_size = 4
            self.task = SimpleNamespace(data={"batch_size": 4}, number=4)

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=self.train_batch_size)

    names = "batch_arg_name='train_batch_size' or batch_arg_name='task.data.batch_size'. If"
    refused(callback, Named(), message=f"give the name of what holds it: {names}")


def test_a_batch_size_that_is_deep_in_a_configuration_or_private_gets_its_name(callback: ZeusBSOCallback) -> None:
    class Configured(Bare):
        def __init__(self) -> None:
            super().__init__()
            train = SimpleNamespace(batch_size=4)
            self.cfg = SimpleNamespace(data=SimpleNamespace(train=train, dl_val_batch_size=8), BSZ=4)
            self._batch_size = 4

    names = ("_batch_size", "cfg.BSZ", "cfg.data.train.batch_size")
    listed = " or ".join(f"batch_arg_name='{name}'" for name in names)
    refused(callback, Configured(), message=f"give the name of what holds it: {listed}. If")


def test_a_loader_that_samples_batches_without_a_batch_size(callback: ZeusBSOCallback) -> None:
    pairs = [[first, first + 1] for first in range(0, 64, 2)]
    loader = DataLoader(rows(), batch_sampler=pairs)
    refused(callback, Bare(), loader, message=r"torch\..*DataLoader given to fit: neither it nor its sampler has")


def test_a_loader_whose_sampler_does_not_let_its_batch_size_be_set(callback: ZeusBSOCallback) -> None:
    class ReadOnly(BatchSampler):
        batch_size = property(lambda self: 4, lambda self, size: None if size == 4 else self.refuse())  # type: ignore[assignment]

        def refuse(self) -> None:
            raise AttributeError("fixed")

    loader = DataLoader(rows(), batch_sampler=ReadOnly(SequentialSampler(range(64)), 4, False))
    refused(callback, Bare(), loader, message=r"the batches of its tests\.lightning.*ReadOnly do not follow")


def test_a_loader_without_batches(callback: ZeusBSOCallback) -> None:
    refused(callback, Bare(), DataLoader(rows(), batch_size=None), message="neither it nor its sampler has")


def test_a_loader_that_is_not_torchs(callback: ZeusBSOCallback) -> None:
    message = r"the builtins\.range given to fit: it is not a DataLoader of torch.*ZeusBSOCallback\(…\)\.run\(\)"
    refused(callback, Bare(), range(4), message=message)


def test_a_loader_among_several_that_cannot_be_rebuilt(callback: ZeusBSOCallback) -> None:
    loaders = {"a": DataLoader(rows(), batch_size=4), "b": DataLoader(rows(), batch_size=None)}
    refused(callback, Bare(), loaders, message="neither it nor its sampler has")


def test_several_names_of_which_one_is_missing(server: Server) -> None:
    fields = job()
    with pytest.raises(MisconfigurationException, match="no attribute 'val_batch_size'"):
        names = ["batch_size", "val_batch_size"]
        fit(ZeusBSOCallback(server.url, fields, batch_arg_name=names, energy_monitor=ScriptedMonitor()), Module())
    assert number_of_trials(BsoClient(server.url), fields["job_id_prefix"]) == 0


def test_an_attribute_that_cannot_be_set(callback: ZeusBSOCallback) -> None:
    class ReadOnly(Bare):
        @property
        def batch_size(self) -> int:
            return 4

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(rows(), batch_size=self.batch_size)

    refused(callback, ReadOnly(), message="cannot set the attribute 'batch_size', which is read-only")


def test_a_fit_whose_validation_is_switched_off(callback: ZeusBSOCallback) -> None:
    refused(callback, Module(), message="learns from validations", limit_val_batches=0)


@pytest.mark.parametrize("none", [{"max_epochs": 0}, {"max_steps": 0}, {"limit_train_batches": 0}])
def test_a_fit_without_a_training_step(callback: ZeusBSOCallback, none: dict[str, int]) -> None:
    refused(callback, Module(), message="takes no training step", **none)


def test_a_module_without_a_validation_loader(callback: ZeusBSOCallback) -> None:
    class NoLoader(Module):
        val_dataloader = pl.LightningModule.val_dataloader

    refused(callback, NoLoader(), message="a validation loader")


def test_a_trainer_that_is_not_lightnings(callback: ZeusBSOCallback) -> None:
    other_class = type("Trainer", (), {"fast_dev_run": False, "__module__": "another.trainer"})
    message = r"this Trainer is from another\.trainer\. Import Trainer from"
    with pytest.raises(MisconfigurationException, match=message):
        callback.setup(other_class(), Module(), "fit")


def test_a_validation_that_never_falls_due(callback: ZeusBSOCallback) -> None:
    refused(callback, Module(), message="none falls due in this fit", max_epochs=3, check_val_every_n_epoch=4)


@pytest.mark.parametrize(
    "options", [{"limit_train_batches": 3}, {"max_steps": 3}, {"max_steps": 3, "check_val_every_n_epoch": None}]
)
def test_an_interval_of_validations_that_no_batch_size_reaches(
    callback: ZeusBSOCallback, options: dict[str, Any]
) -> None:
    refused(callback, Module(), message="is more than the 3 batches that", val_check_interval=4, **options)


def test_a_module_that_does_not_validate(callback: ZeusBSOCallback) -> None:
    class NoValidation(pl.LightningModule):
        training_step = Bare.training_step
        configure_optimizers = Bare.configure_optimizers

    refused(callback, NoValidation(), Data(), message="Give it a validation_step")


def test_a_batch_size_that_cannot_be_divided_among_the_processes(server: Server) -> None:
    odd = ZeusBSOCallback(server.url, job(batch_sizes=[8, 9, 16]))
    with pytest.raises(ProcessRaisedException, match="sizes are global, and 9 cannot be divided among the 2 processes"):
        fit(odd, Module(), devices=2, strategy="ddp_fork")


def test_a_job_that_is_not_valid(server: Server) -> None:
    with pytest.raises(ValidationError, match="default_batch_size 7 is not among batch_sizes"):
        ZeusBSOCallback(server.url, job(default_batch_size=7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server_url": "localhost:8000"}, "'localhost:8000' is not an address"),
        ({"on_fail": "ignore"}, "on_fail='ignore' is not a valid value; choose from: 'raise', 'stop'"),
        ({"check": "twice"}, "check='twice' is not a valid value; choose from: 'loader', 'batch', 'off'"),
        ({"probe": "always"}, "probe='always' is not a valid value; choose from: 'auto', None"),
    ],
)
def test_an_argument_that_is_not_valid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        ZeusBSOCallback(**{"job": job()} | options)


def test_asking_before_the_fit_without_a_complete_job(server: Server) -> None:
    callback = ZeusBSOCallback(server.url, {"batch_sizes": [8, 16]})
    with pytest.raises(MisconfigurationException, match="no complete job"), callback.run():
        pass


def test_a_server_that_does_not_answer() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnreachable, match="is the server running"):
        fit(ZeusBSOCallback(url, job(), energy_monitor=ScriptedMonitor()), Module())


def test_a_job_id_that_stands_for_another_job(server: Server, client: BsoClient) -> None:
    fields = job()
    named = fields | {"job_id": fields["job_id_prefix"]}
    fit(ZeusBSOCallback(server.url, named, energy_monitor=ScriptedMonitor()), Module([1.0]))
    with pytest.raises(ServerRefused, match="target_metric"):
        fit(ZeusBSOCallback(server.url, named | {"target_metric": 0.7}, energy_monitor=ScriptedMonitor()), Module())
    assert number_of_trials(client, fields["job_id_prefix"]) == 1


def test_two_of_these_callbacks(callback: ZeusBSOCallback, server: Server) -> None:
    other = ZeusBSOCallback(server.url, callback.job)
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `ZeusBSOCallback`"):
        trainer(callback, other).fit(Module())
