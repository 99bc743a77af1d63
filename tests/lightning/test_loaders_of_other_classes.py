"""Loaders given to `fit` that are not plain DataLoaders keep their class and all that they were created with."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler, Subset

from lightning_bso import BsoClient, ZeusBSOCallback
from tests.client.jobs import number_of_trials
from tests.lightning.trainings import FIRST_SIZE, OLD_SIZE, ROWS, Bare, fit, rows

pytestmark = pytest.mark.filterwarnings("ignore:.*max_epochs")


class Scaling(DataLoader[Any]):
    """Multiplies the rows, and counts its batches when it is created."""

    def __init__(
        self, dataset: Dataset[Any], batch_size: int = 1, shuffle: bool = False, factor: int = 1, **kwargs: Any
    ):
        self.factor = factor
        super().__init__(dataset, batch_size, shuffle, collate_fn=self.scale, **kwargs)
        self.number = len(self.sampler) // batch_size  # type: ignore[arg-type]

    def scale(self, samples: list[Any]) -> list[torch.Tensor]:
        return [self.factor * torch.stack([sample for (sample,) in samples])]

    def __len__(self) -> int:
        return self.number


class Windowed(DataLoader[Any]):
    """Wraps its data, so creating it from its own data would wrap them twice."""

    def __init__(self, dataset: Dataset[Any], batch_size: int) -> None:
        super().__init__(Subset(dataset, range(1, len(dataset))), batch_size)  # type: ignore[arg-type]


class Own(Sampler[int]):
    """A sampler of the user's own, which shuffles or not."""

    def __init__(self, number: int, shuffle: bool) -> None:
        self.rows = range(number)[::-1] if shuffle else range(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


class WithOwnSampler(DataLoader[Any]):
    """Creates its sampler from an argument that it does not show."""

    def __init__(self, dataset: Any, batch_size: int, shuffle: bool = False, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size, sampler=Own(len(dataset), shuffle), **kwargs)


class Translating(DataLoader[Any]):
    """Has attributes with the names of its arguments and other values."""

    def __init__(self, dataset: Any, batch_size: int, seed: int = 0, augment: bool = True, **kwargs: Any) -> None:
        self.seed, self.augment = seed + 1, "on" if augment else "off"
        super().__init__(dataset, batch_size, **kwargs)


class Hidden(DataLoader[Any]):
    """Does not show what it was created with."""

    def __init__(self, number: int, batch_size: int) -> None:
        super().__init__(Subset(rows(), range(number)), batch_size)


class Sized(DataLoader[Any]):
    """Has only the arguments that it needs."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, shuffle: bool = True) -> None:
        super().__init__(dataset, batch_size, shuffle)


class Lazy(Sampler[list[int]]):
    """Reads its batch size when an epoch starts. Has an argument that it does not show."""

    def __init__(self, number: int, batch_size: int) -> None:
        self.rows, self.batch_size = range(number), batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return (list(self.rows[at : at + self.batch_size]) for at in range(0, len(self.rows), self.batch_size))

    def __len__(self) -> int:
        return len(self.rows) // self.batch_size


class Eager(Sampler[list[int]]):
    """Makes its batches when it is created."""

    def __init__(self, sampler: Sampler[int], batch_size: int) -> None:
        self.sampler, self.batch_size = sampler, batch_size
        self.batches = list(BatchSampler(sampler, batch_size, drop_last=False))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Hiding(Sampler[list[int]]):
    """Makes its batches when it is created, of rows that it does not show. Its length follows its batch size."""

    def __init__(self, number: int, batch_size: int) -> None:
        self.batch_size, self.count = batch_size, number
        self.batches = list(BatchSampler(range(number), batch_size, drop_last=False))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)


class Counting(Hiding):
    """Shows all that it was created with. Its length follows its batch size."""

    def __init__(self, number: int, batch_size: int) -> None:
        super().__init__(number, batch_size)
        self.number = number


class Wrapping(DataLoader[Any]):
    """Wraps its collate function, so creating it from its own would wrap it twice."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, collate_fn: Any = torch.stack, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size, collate_fn=lambda rows: [collate_fn([row for (row,) in rows])], **kwargs)


class Stacking(DataLoader[Any]):
    """Collates with a method that reads the loader's batch size. Cannot be created again."""

    def __init__(self, number: int, batch_size: int) -> None:
        super().__init__(Subset(rows(), range(number)), batch_size, collate_fn=self.stack)

    def stack(self, samples: list[Any]) -> list[torch.Tensor]:
        return [torch.stack([row for (row,) in samples[: self.batch_size]])]


def fitted(callback: ZeusBSOCallback, loader: DataLoader[Any]) -> tuple[Bare, DataLoader[Any]]:
    """Fit with a loader, check the sizes, and return the module and the loader that the fit used."""
    module = Bare()
    running = fit(callback, module, loader, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}
    assert type(running.train_dataloader) is type(loader)
    return module, running.train_dataloader


def test_a_subclass_keeps_its_own_arguments_and_those_of_torch(callback: ZeusBSOCallback) -> None:
    module, new = fitted(callback, Scaling(rows(), OLD_SIZE, factor=2, num_workers=0, timeout=0))
    assert module.rows_seen == list(range(0, 2 * ROWS, 2))
    assert len(new) == ROWS // FIRST_SIZE


@pytest.mark.parametrize(
    "make", [lambda **how: Scaling(rows(), OLD_SIZE, **how), lambda **how: Sized(rows(), OLD_SIZE, **how)]
)
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_subclass_shuffles_as_before(callback: ZeusBSOCallback, make: Any, shuffle: bool) -> None:
    module, new = fitted(callback, make(shuffle=shuffle))
    assert (module.rows_seen != list(range(ROWS))) is shuffle
    assert sorted(module.rows_seen) == list(range(ROWS))
    assert isinstance(new.sampler, RandomSampler if shuffle else SequentialSampler)


def test_a_subclass_keeps_the_sampler_that_it_has_created(callback: ZeusBSOCallback) -> None:
    module, new = fitted(callback, loader := WithOwnSampler(rows(), OLD_SIZE, shuffle=True))
    assert new.sampler is loader.sampler
    assert module.rows_seen == list(range(ROWS))[::-1]


@pytest.mark.parametrize("loader", [Wrapping(rows(), OLD_SIZE), Stacking(ROWS, OLD_SIZE)], ids=["wrapped", "method"])
def test_a_subclass_keeps_how_it_collates(callback: ZeusBSOCallback, loader: DataLoader[Any]) -> None:
    module, _ = fitted(callback, loader)
    assert module.rows_seen == list(range(ROWS))


def test_a_loader_keeps_what_the_user_has_set_on_it(callback: ZeusBSOCallback) -> None:
    loader = DataLoader(rows(), OLD_SIZE)
    loader.transform = transform = object()  # type: ignore[attr-defined]
    _, new = fitted(callback, loader)
    assert new.transform is transform  # type: ignore[attr-defined]


@pytest.mark.parametrize("augment", [True, False])
def test_a_subclass_keeps_attributes_that_are_not_its_arguments(callback: ZeusBSOCallback, augment: bool) -> None:
    loader = Translating(rows(), OLD_SIZE, seed=7, augment=augment)
    _, new = fitted(callback, loader)
    assert (new.seed, new.augment) == (loader.seed, loader.augment)


@pytest.mark.parametrize("loader", [Windowed(Subset(rows(), range(33)), OLD_SIZE), Hidden(32, OLD_SIZE)])
def test_a_subclass_that_cannot_be_created_again_is_copied(callback: ZeusBSOCallback, loader: DataLoader[Any]) -> None:
    _, new = fitted(callback, loader)
    assert new.dataset is loader.dataset
    assert loader.batch_size == OLD_SIZE  # the user's loader is unchanged


@pytest.mark.parametrize(
    "sampler", [Lazy(ROWS, OLD_SIZE), Eager(SequentialSampler(range(ROWS)), OLD_SIZE), Counting(ROWS, OLD_SIZE)]
)
def test_a_sampler_of_batches_has_the_servers_batch_size(callback: ZeusBSOCallback, sampler: Any) -> None:
    module, new = fitted(callback, DataLoader(rows(), batch_sampler=sampler))
    assert module.rows_seen == list(range(ROWS))
    assert type(new.batch_sampler) is type(sampler)
    assert sampler.batch_size == OLD_SIZE  # the user's sampler is unchanged


def test_a_sampler_whose_batches_do_not_follow_its_batch_size_is_refused(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    with pytest.raises(
        MisconfigurationException, match=r"the batches of its tests\..*Hiding do not follow a batch size"
    ):
        fitted(callback, DataLoader(rows(), batch_sampler=Hiding(ROWS, OLD_SIZE)))
    assert number_of_trials(client, callback.job.job_id_prefix) == 0


class ClassesTimesImages(BatchSampler):
    """Takes four images of each of some classes, and refuses other batch sizes when it is created."""

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool) -> None:
        assert batch_size % 4 == 0, "give a multiple of 4"
        self.classes = batch_size // 4
        super().__init__(sampler, self.classes * 4, drop_last)


def test_a_sampler_that_refuses_some_batch_sizes_gets_those_of_the_job(callback: ZeusBSOCallback) -> None:
    sampler = ClassesTimesImages(SequentialSampler(range(ROWS)), OLD_SIZE, drop_last=True)
    fit(callback, module := Bare(), DataLoader(rows(), batch_sampler=sampler), max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}


def test_loaders_of_different_batch_sizes_are_warned_of(callback: ZeusBSOCallback) -> None:
    class Both(Bare):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            return super().training_step(batch["labeled"], index)

    loaders = {"labeled": DataLoader(rows(), batch_size=4), "unlabeled": DataLoader(rows(), batch_size=28)}
    with pytest.warns(UserWarning, match=r"different batch sizes \(4, 28\)\. All of them get the run's batch size"):
        fit(callback, module := Both(), loaders, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}


def test_to_look_at_a_sampler_changes_no_random_state(callback: ZeusBSOCallback) -> None:
    def order(loader: DataLoader[Any]) -> list[int]:
        torch.manual_seed(1)
        module = Bare()
        fit(callback, module, loader, max_epochs=1)
        return module.rows_seen

    own = BatchSampler(RandomSampler(range(ROWS)), OLD_SIZE, drop_last=False)
    assert order(DataLoader(rows(), batch_sampler=own)) == order(DataLoader(rows(), OLD_SIZE, shuffle=True))


def test_a_loader_without_batching_may_have_a_sampler_of_batches(callback: ZeusBSOCallback) -> None:
    class Rows(Dataset[Any]):
        def __getitem__(self, indices: list[int]) -> list[torch.Tensor]:
            return [torch.tensor(indices).float().unsqueeze(1)]

    sampler = BatchSampler(SequentialSampler(range(ROWS)), OLD_SIZE, drop_last=False)
    module, _ = fitted(callback, DataLoader(Rows(), batch_size=None, sampler=sampler))
    assert module.rows_seen == list(range(ROWS))


class Pairs(DataLoader[Any]):
    """Takes its batches from two loaders."""

    def __init__(self, *data: Dataset[Any], batch_size: int) -> None:
        self.loaders = [DataLoader(each, batch_size) for each in data]
        super().__init__(self.loaders[0])  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[Any]:
        return ([left, right] for [left], [right] in zip(*self.loaders, strict=True))


class Paired(Bare):
    """Trains with a loader that wraps others."""

    batch_size = OLD_SIZE

    def __init__(self, number: int = ROWS) -> None:
        super().__init__()
        self.number = number

    def train_dataloader(self) -> DataLoader[Any]:
        half = Subset(rows(), range(self.number))
        return Pairs(half, half, batch_size=self.batch_size)


def test_a_loader_that_wraps_others_has_their_batch_size(callback: ZeusBSOCallback) -> None:
    module = Paired()
    fit(callback, module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE}


def test_a_last_batch_of_one_sample_of_a_wrapped_loader_is_warned_of(callback: ZeusBSOCallback) -> None:
    with pytest.warns(UserWarning, match="a single sample"):
        fit(callback, Paired(33), max_epochs=1)


def test_a_loader_that_wraps_others_is_refused_where_it_is_given_to_fit(
    callback: ZeusBSOCallback, client: BsoClient
) -> None:
    with pytest.raises(MisconfigurationException, match="Pairs given to fit: it takes its batches from another loader"):
        fitted(callback, Pairs(rows(), rows(), batch_size=OLD_SIZE))
    assert number_of_trials(client, callback.job.job_id_prefix) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda data: DataLoader(data, OLD_SIZE),
        lambda data: Scaling(data, OLD_SIZE),
        lambda data: DataLoader(data, batch_sampler=BatchSampler(SequentialSampler(data), OLD_SIZE, drop_last=False)),
    ],
    ids=["plain", "subclass", "batch_sampler"],
)
def test_a_last_batch_of_one_sample_is_dropped_with_a_warning(callback: ZeusBSOCallback, make: Any) -> None:
    with pytest.warns(UserWarning, match="batch size 16, the last batch of an epoch has a single sample.*dropped"):
        module, _ = fitted(callback, make(Subset(rows(), range(33))))
    assert len(module.rows_seen) == 32


def test_a_last_batch_of_one_sample_of_the_users_own_loader_is_warned_of(callback: ZeusBSOCallback) -> None:
    class Own(Bare):
        batch_size = OLD_SIZE

        def train_dataloader(self) -> DataLoader[Any]:
            return DataLoader(Subset(rows(), range(33)), batch_size=self.batch_size)

    module = Own()
    with pytest.warns(UserWarning, match="a single sample.*Create the train loader with drop_last=True"):
        fit(callback, module, max_epochs=1)
    assert module.sizes_seen == {FIRST_SIZE, 1}


@pytest.mark.filterwarnings("error:.*single sample")
@pytest.mark.parametrize("rows_in_all", [1, 32, 34])
def test_other_last_batches_are_kept(callback: ZeusBSOCallback, rows_in_all: int) -> None:
    module = Bare()
    fit(callback, module, DataLoader(Subset(rows(), range(rows_in_all)), OLD_SIZE), max_epochs=1)
    assert module.rows_seen == list(range(rows_in_all))
