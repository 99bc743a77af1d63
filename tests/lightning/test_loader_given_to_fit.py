"""A loader given to `fit` is rebuilt with the server's batch size, and keeps all other settings."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SubsetRandomSampler

from lightning_bso import ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor, job
from tests.lightning.ranks import run_ranks
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, ROWS, Bare, Module, fit, rows, trainer
from tests.servers import Server

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs", "ignore:.*num_workers")


class Stream(IterableDataset[Any]):
    """Yields the rows in order, and has no length."""

    def __iter__(self) -> Iterator[Any]:
        return (row for row in rows())  # type: ignore[attr-defined]


def double(samples: list[Any]) -> list[torch.Tensor]:
    """Collate samples, as a user's own function may."""
    return [2 * torch.stack([sample for (sample,) in samples])]


def begin_worker(worker: int) -> None:
    """Set up a worker, as a user's own function may."""
    torch.manual_seed(worker)


def rebuilt(callback: ZeusBSOCallback, loader: DataLoader[Any], module: Bare | None = None) -> DataLoader[Any]:
    """Fit with a loader, and return the train loader that the fit used."""
    running = fit(callback, module or Bare(), loader, max_epochs=1)
    return running.train_dataloader


def test_it_has_the_servers_batch_size(callback: ZeusBSOCallback) -> None:
    module = Bare()
    loader = DataLoader(rows(), batch_size=OLD_SIZE)
    assert rebuilt(callback, loader, module).batch_size == FIRST_SIZE
    assert module.sizes_seen == {FIRST_SIZE}
    assert loader.batch_size == OLD_SIZE  # the user's loader is unchanged


def test_an_attribute_of_the_module_has_the_same_batch_size(callback: ZeusBSOCallback) -> None:
    module = Module()
    rebuilt(callback, DataLoader(rows(), batch_size=OLD_SIZE), module)
    assert (module.batch_size, module.sizes_seen) == (FIRST_SIZE, {FIRST_SIZE})


def test_it_shuffles_as_before(callback: ZeusBSOCallback) -> None:
    module = Bare()
    generator = torch.Generator().manual_seed(7)
    new = rebuilt(callback, DataLoader(rows(), batch_size=OLD_SIZE, shuffle=True, generator=generator), module)
    expected = [int(row) for row in RandomSampler(range(ROWS), generator=torch.Generator().manual_seed(7))]
    assert new.generator is generator
    assert sorted(module.rows_seen) == list(range(ROWS))
    assert module.rows_seen != sorted(module.rows_seen)
    assert sorted(expected) == sorted(module.rows_seen)


def test_it_keeps_the_sampler(callback: ZeusBSOCallback) -> None:
    module = Bare()
    sampler = SubsetRandomSampler(range(32))
    assert rebuilt(callback, DataLoader(rows(), batch_size=OLD_SIZE, sampler=sampler), module).sampler is sampler
    assert sorted(module.rows_seen) == list(range(32))


def test_it_does_not_shuffle_what_was_not_shuffled(callback: ZeusBSOCallback) -> None:
    module = Bare()
    rebuilt(callback, DataLoader(rows(), batch_size=OLD_SIZE), module)
    assert module.rows_seen == list(range(ROWS))


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, {FIRST_SIZE}), (False, {FIRST_SIZE, 8})])
def test_it_keeps_or_drops_the_last_batch(callback: ZeusBSOCallback, drop_last: bool, sizes: set[int]) -> None:
    module = Bare()
    forty_rows = torch.utils.data.Subset(rows(), range(40))
    rebuilt(callback, DataLoader(forty_rows, batch_size=OLD_SIZE, drop_last=drop_last), module)
    assert module.sizes_seen == sizes


def test_it_keeps_the_collate_function(callback: ZeusBSOCallback) -> None:
    module = Bare()
    rebuilt(callback, DataLoader(rows(), batch_size=OLD_SIZE, collate_fn=double), module)
    assert module.rows_seen == list(range(0, 2 * ROWS, 2))


def test_it_keeps_the_workers(callback: ZeusBSOCallback) -> None:
    module = Bare()
    options: dict[str, Any] = {
        "num_workers": 1,
        "prefetch_factor": 3,
        "persistent_workers": True,
        "worker_init_fn": begin_worker,
        "timeout": 60,
        "multiprocessing_context": "fork",
        "in_order": False,
    }
    new = rebuilt(callback, DataLoader(rows(), batch_size=OLD_SIZE, **options), module)
    new_options = {name: getattr(new, name) for name in options} | {"multiprocessing_context": "fork"}
    assert new_options["worker_init_fn"] is not None
    assert {**new_options, "worker_init_fn": begin_worker} == options
    assert new.multiprocessing_context.get_start_method() == "fork"
    assert module.sizes_seen == {FIRST_SIZE}


def test_it_may_be_a_stream(callback: ZeusBSOCallback) -> None:
    module = Bare()
    rebuilt(callback, DataLoader(Stream(), batch_size=OLD_SIZE), module)
    assert module.sizes_seen == {FIRST_SIZE}
    assert module.rows_seen == list(range(ROWS))


def test_under_ddp_each_rank_gets_its_share_of_it(server: Server, tmp_path: Path) -> None:
    fields = job()

    def training(_rank: int) -> dict[str, Any]:
        callback = ZeusBSOCallback(server.url, fields, energy_monitor=ScriptedMonitor())
        module = Bare([1.0])
        running = trainer(callback, devices=2, strategy="ddp")
        running.fit(module, DataLoader(rows(), batch_size=OLD_SIZE))
        return {"sizes": sorted(module.sizes_seen), "rows": sorted(module.rows_seen), "global": callback.batch_size}

    ranks = run_ranks(tmp_path, training)
    assert [rank.exit_code for rank in ranks] == [0, 0], ranks[0].stderr
    assert [(rank.result["global"], rank.result["sizes"]) for rank in ranks] == [(FIRST_SIZE, [FIRST_SIZE // 2])] * 2
    assert sorted(ranks[0].result["rows"] + ranks[1].result["rows"]) == list(range(ROWS))
