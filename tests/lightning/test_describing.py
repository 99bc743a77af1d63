"""A callback without a job derives one from the training, and recognizes the training at its next launch."""

import logging
from typing import Any
from uuid import uuid4

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from pydantic import ValidationError
from torch.utils.data import DataLoader, Subset

from lightning_bso import BsoClient, JobSpec, ZeusBSOCallback
from lightning_bso.lightning.describing import Metric, batch_sizes_around, find_metric
from lightning_bso.wire import RegisteredJobSpec
from tests.lightning.ranks import RankModule, run_ranks
from tests.lightning.trainings import ROWS, Bare, Data, Module, ModuleWithHparams, fit, rows, trainer
from tests.servers import Server


@pytest.fixture
def prefix(monkeypatch: pytest.MonkeyPatch) -> str:
    """Start of the names of this test's jobs."""
    name = f"derived-{uuid4().hex}"
    monkeypatch.setenv("ZEUS_BSO_JOB", name)
    return name


def deriving(server: Server, job: dict[str, Any] | None = None, **options: Any) -> ZeusBSOCallback:
    return ZeusBSOCallback(server.url, job, **options)


def jobs(client: BsoClient, prefix: str) -> list[RegisteredJobSpec]:
    return [client.describe(listing.job_id).spec for listing in client.list_jobs(contains=prefix).jobs]


class WithLoss(Module):
    """Logs a loss."""

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", next(self._metrics))


class Wide(ModuleWithHparams):
    """Has a hyperparameter beside its batch size."""

    def __init__(self, width: int = 1, batch_size: int = 4, loss: Any = None) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()


def test_the_job_is_what_the_training_is(server: Server, client: BsoClient, prefix: str) -> None:
    fit(deriving(server), WithLoss(), max_epochs=2)
    (spec,) = jobs(client, prefix)
    assert spec.job_id is not None
    assert spec.job_id.removeprefix(prefix)[0] == "-"
    assert (spec.batch_sizes, spec.default_batch_size) == ([2, 4, 8, 16], 4)  # 64 rows fill 4 batches of 16
    assert (spec.target_metric, spec.higher_is_better_metric, spec.max_epochs) == (None, False, 2)
    assert spec.policy == "gp-ucb"


def test_the_name_begins_with_the_classes(server: Server, client: BsoClient) -> None:
    class Unnamed(Bare):
        pass

    callback = deriving(server, monitor="val_acc")
    fit(callback, Unnamed(), Data(), max_epochs=1)
    assert callback.job.job_id_prefix == "Unnamed-Data"


def test_the_fit_ends_by_its_own_rules(server: Server, prefix: str) -> None:
    for _ in range(4):  # the fourth has a target
        assert fit(deriving(server), WithLoss(iter([0.5, 0.4, 0.3])), max_epochs=3).current_epoch == 3


def test_more_data_and_another_batch_size_are_the_same_job(server: Server, client: BsoClient, prefix: str) -> None:
    class Growing(WithLoss):
        rows_now = 16

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Subset(rows(), range(self.rows_now)), batch_size=self.batch_size)

    for rows_now, batch_size in ((16, 4), (ROWS, 4), (ROWS, 8)):
        module = Growing()
        module.rows_now, module.batch_size = rows_now, batch_size
        fit(deriving(server), module, max_epochs=1)
        assert module.sizes_seen == {4}
    (spec,) = jobs(client, prefix)
    assert spec.batch_sizes == [2, 4]


def test_a_hyperparameter_tells_trainings_apart_and_an_object_does_not(
    server: Server, client: BsoClient, prefix: str
) -> None:
    for module in (Wide(1), Wide(2), Wide(2, batch_size=8), Wide(2, loss=object()), Wide(2, loss=object())):
        fit(deriving(server, monitor="val_acc"), module, max_epochs=1)
    assert len(jobs(client, prefix)) == 3


def test_a_loader_given_to_fit_has_the_batch_size(server: Server, client: BsoClient, prefix: str) -> None:
    fit(deriving(server, monitor="val_acc"), Bare(), DataLoader(rows(), batch_size=8), max_epochs=1)
    (spec,) = jobs(client, prefix)
    assert (spec.batch_sizes, spec.default_batch_size) == ([2, 4, 8, 16], 8)


def test_fields_that_are_given_stay(server: Server, client: BsoClient, prefix: str) -> None:
    given = {"batch_sizes": [4, 6], "eta_knob": 1.0, "target_metric": 0.4}
    fit(deriving(server, given), WithLoss(), max_epochs=1)
    (spec,) = jobs(client, prefix)
    assert (spec.batch_sizes, spec.default_batch_size, spec.eta_knob, spec.target_metric) == ([4, 6], 4, 1.0, 0.4)


def test_given_batch_sizes_without_todays_are_refused(server: Server, prefix: str) -> None:
    with pytest.raises(ValidationError, match="default_batch_size 4 is not among batch_sizes"):
        fit(deriving(server, {"batch_sizes": [8, 16]}), WithLoss())


def test_an_unknown_batch_size_is_refused(server: Server, client: BsoClient, prefix: str) -> None:
    module = WithLoss()
    module.batch_size = None  # type: ignore[assignment]
    with pytest.raises(MisconfigurationException, match="'batch_size' holds no number"):
        fit(deriving(server), module)
    assert not jobs(client, prefix)


def test_the_log_has_the_job_as_code(
    server: Server, client: BsoClient, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        fit(deriving(server), WithLoss(), max_epochs=1)
    (line,) = (line for line in caplog.messages if "The job is derived" in line)
    code = line[line.index("ZeusBSOCallback(") :]
    pasted = eval(code, {"ZeusBSOCallback": ZeusBSOCallback, "JobSpec": JobSpec})
    pasted.server_url = server.url
    fit(pasted, WithLoss(), max_epochs=1)
    pasted_job, derived_job = (client.describe(listing.job_id) for listing in client.list_jobs(contains=prefix).jobs)
    assert pasted_job.spec.model_copy(update={"job_id": derived_job.spec.job_id}) == derived_job.spec


def test_an_accuracy_is_taken_where_no_loss_is_logged(server: Server, client: BsoClient, prefix: str) -> None:
    fit(deriving(server), Module([0.25, 0.75]), max_epochs=2)
    (listing,) = client.list_jobs(contains=prefix).jobs
    (trial,) = client.list_trials(listing.job_id).trials
    assert trial.best_metric == -0.75  # the job expects a loss, and the negative of an accuracy falls like one


def test_a_metric_that_is_watched_is_the_jobs(server: Server, client: BsoClient, prefix: str) -> None:
    trainer(deriving(server), EarlyStopping("val_acc", mode="max"), max_epochs=1).fit(Module())
    (spec,) = jobs(client, prefix)
    assert spec.higher_is_better_metric


@pytest.mark.parametrize(
    ("callbacks", "name", "expected"),
    [
        ([], None, Metric("val_loss", higher_is_better=False, is_assumed=True)),
        ([EarlyStopping("val_f1", mode="max")], None, Metric("val_f1", higher_is_better=True)),
        ([ModelCheckpoint(monitor="step", mode="max")], None, Metric("val_loss", False, is_assumed=True)),
        ([ModelCheckpoint(monitor="train_loss")], None, Metric("val_loss", False, is_assumed=True)),
        ([EarlyStopping("val_loss"), EarlyStopping("val_f1", mode="max")], None, Metric("val_loss", False)),
        ([EarlyStopping("score", mode="min")], "score", Metric("score", higher_is_better=False)),
        ([EarlyStopping("val_loss")], "val_f1", Metric("val_f1", higher_is_better=True)),
        ([], "val_rmse", Metric("val_rmse", higher_is_better=False)),
    ],
)
def test_the_metric_and_its_direction(callbacks: list[pl.Callback], name: str | None, expected: Metric) -> None:
    checkpointing = any(isinstance(each, ModelCheckpoint) for each in callbacks)
    assert find_metric(trainer(*callbacks, enable_checkpointing=checkpointing), name, None) == expected


@pytest.mark.parametrize(
    ("batch_size", "largest", "expected"),
    [
        (16, None, [2, 4, 8, 16, 32, 64, 128]),
        (16, 40, [2, 4, 8, 16, 32]),
        (16, 1, [2, 4, 8, 16]),
        (1, None, [1, 2, 4, 8]),
        (100, 100, [12, 25, 50, 100]),
    ],
)
def test_the_batch_sizes_around_the_default(batch_size: int, largest: int | None, expected: list[int]) -> None:
    assert batch_sizes_around(batch_size, largest) == expected


def test_the_largest_batch_size_of_a_device_is_a_limit(server: Server, client: BsoClient, prefix: str) -> None:
    fit(deriving(server, max_device_batch_size=8), WithLoss(), max_epochs=1)
    (spec,) = jobs(client, prefix)
    assert spec.batch_sizes == [2, 4, 8]


def test_ranks_derive_one_job_of_global_batch_sizes(
    server: Server, client: BsoClient, prefix: str, tmp_path: Any
) -> None:
    def training(_rank: int) -> dict[str, Any]:
        module = RankModule()
        callback = deriving(server)
        trainer(callback, devices=2, strategy="ddp", max_epochs=2).fit(module)
        return {"sizes": callback.job.batch_sizes, "seen": list(module.sizes_seen)}

    ranks = run_ranks(tmp_path, training)
    assert [rank.result for rank in ranks] == [{"sizes": [4, 8, 16], "seen": [4]}] * 2, ranks[0].stderr
    (spec,) = jobs(client, prefix)
    assert (spec.batch_sizes, spec.default_batch_size) == ([4, 8, 16], 8)
