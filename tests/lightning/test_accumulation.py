"""Gradient accumulation reaches a batch size that is too large for a device, and gives the same training."""

from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_bso import BsoClient, ZeusBSOCallback
from lightning_bso.lightning.dataloading import split
from tests.client.jobs import ScriptedMonitor, job, number_of_trials, only_trial
from tests.lightning.trainings import FIRST_SIZE, ROWS, Bare, Module, fit, rows, trainer
from tests.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs")


def accumulating(server: Server, limit: int, fields: dict[str, Any] | None = None, **options: Any) -> Any:
    """Create a callback that accumulates, with a limit on the batch size of a device."""
    return ZeusBSOCallback(
        server.url,
        fields or job(),
        energy_monitor=ScriptedMonitor(),
        max_device_batch_size=limit,
        **{"accumulate": "auto", **options},
    )


def weights_after(callback: pl.Callback, **options: Any) -> torch.Tensor:
    """Train from a fixed seed, and return the weights."""
    torch.manual_seed(0)
    module = Module()
    fit(callback, module, max_epochs=3, **options)
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("own", [1, 2], ids="the training accumulates {}".format)
def test_parts_make_the_same_training_as_the_whole(server: Server, own: int) -> None:
    options = {"accumulate_grad_batches": own}
    whole = weights_after(ZeusBSOCallback(server.url, job(), energy_monitor=ScriptedMonitor()), **options)
    parts = weights_after(accumulating(server, 4), **options)
    initial = weights_after(ZeusBSOCallback(None, job()), max_steps=0)
    assert not torch.equal(whole, initial)
    torch.testing.assert_close(parts, whole)


def test_the_parts_are_recorded_with_the_trial(server: Server, client: BsoClient) -> None:
    fields = job()
    callback, module = accumulating(server, 4, fields), Module([1.0])
    running = fit(callback, module)
    assert (callback.batch_size, module.sizes_seen, running.global_step) == (FIRST_SIZE, {4}, ROWS // FIRST_SIZE)
    trial = only_trial(client, fields["job_id_prefix"])
    assert (trial.batch_size, trial.accumulate_grad_batches, trial.converged) == (FIRST_SIZE, 4, True)


def test_a_batch_size_that_a_device_takes_is_taken_whole(server: Server, client: BsoClient) -> None:
    fields = job()
    module = Module([1.0])
    fit(accumulating(server, FIRST_SIZE, fields), module)
    assert module.sizes_seen == {FIRST_SIZE}
    assert only_trial(client, fields["job_id_prefix"]).accumulate_grad_batches == 1


def test_a_scheduler_made_for_the_number_of_steps_counts_whole_batches(server: Server) -> None:
    class OneCycle(Module):
        def configure_optimizers(self) -> Any:
            self.steps = int(self.trainer.estimated_stepping_batches)
            return super().configure_optimizers()

    module = OneCycle()
    running = fit(accumulating(server, 4), module, max_epochs=2)
    assert module.steps == running.global_step == 2 * ROWS // FIRST_SIZE


def test_the_trainer_is_given_back_as_it_was(server: Server) -> None:
    fields = job()
    callback = accumulating(server, 8, fields)
    running = trainer(callback)
    sizes = []
    for _ in range(3):
        module = Module([1.0])
        running.fit(module)
        sizes.append((callback.batch_size, module.sizes_seen))
        assert running.accumulate_grad_batches == 1
    assert sizes == [(16, {8}), (8, {8}), (32, {8})]


def test_a_training_that_accumulates_itself_gets_its_number_back(server: Server, client: BsoClient) -> None:
    fields = job()
    running = trainer(accumulating(server, 4, fields), accumulate_grad_batches=2)
    module = Module([1.0])
    running.fit(module)
    assert (module.sizes_seen, running.global_step) == ({4}, ROWS // FIRST_SIZE // 2)
    assert running.accumulate_grad_batches == 2
    assert only_trial(client, fields["job_id_prefix"]).accumulate_grad_batches == 4


def test_a_limit_of_batches_counts_whole_batches(server: Server) -> None:
    running = trainer(accumulating(server, 4), limit_train_batches=3)
    running.fit(Module([1.0]))
    assert running.global_step == 3
    assert running.limit_train_batches == 3


def test_a_later_test_leaves_what_the_user_has_set_since(server: Server) -> None:
    running, module = trainer(accumulating(server, 4)), Module([1.0, 1.0])
    running.fit(module)
    running.accumulate_grad_batches = 8
    running.validate(module)
    assert running.accumulate_grad_batches == 8


def test_the_trainer_is_given_back_as_it_was_after_an_error_too(server: Server) -> None:
    class Broken(Module):
        def training_step(self, *_: Any) -> Any:
            raise RuntimeError("a fault in the training")

    running = trainer(accumulating(server, 4))
    with pytest.raises(RuntimeError, match="a fault"):
        running.fit(Broken())
    assert running.accumulate_grad_batches == 1


def test_a_loader_given_to_fit_gets_the_part(server: Server) -> None:
    module = Bare()
    fit(accumulating(server, 8), module, torch.utils.data.DataLoader(rows(), batch_size=2), max_epochs=1)
    assert module.sizes_seen == {8}


def test_without_accumulation_what_a_device_cannot_take_is_refused(server: Server, client: BsoClient) -> None:
    fields = job()
    with pytest.raises(MisconfigurationException, match=r"batch sizes 16, 32.*accumulate='auto'"):
        fit(accumulating(server, 8, fields, accumulate=None), Module())
    assert number_of_trials(client, fields["job_id_prefix"]) == 0


class ByHand(Module):
    """Uses manual optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize(
    ("module", "others", "message"),
    [
        (ByHand, [], "optimizes manually"),
        (Module, [GradientAccumulationScheduler({4: 2})], "GradientAccumulationScheduler"),
    ],
    ids=["manual optimization", "scheduler"],
)
def test_what_cannot_be_accumulated_is_refused_before_a_trial_is_taken(
    server: Server, client: BsoClient, module: type, others: Any, message: str
) -> None:
    fields = job()
    running = trainer(accumulating(server, 4, fields), *others)
    with pytest.raises(MisconfigurationException, match=message):
        running.fit(module())
    assert number_of_trials(client, fields["job_id_prefix"]) == 0
    assert running.accumulate_grad_batches == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": "auto"}, "requires max_device_batch_size"),
        ({"accumulate": "always", "max_device_batch_size": 4}, "'always' is not a valid value"),
        ({"max_device_batch_size": 0}, "is not a batch size"),
    ],
)
def test_options_that_make_no_sense_are_refused_at_once(options: Any, message: str) -> None:
    with pytest.raises(MisconfigurationException, match=message):
        ZeusBSOCallback(None, job(), **options)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_the_parts_are_equal_small_enough_and_the_fewest(batch_size: int, limit: int) -> None:
    size, parts = split(batch_size, limit)
    assert size * parts == batch_size
    assert size <= limit
    assert not any(batch_size % fewer == 0 and batch_size // fewer <= limit for fewer in range(1, parts))
