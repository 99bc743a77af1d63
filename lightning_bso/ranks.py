"""Shares decisions and errors among the processes (ranks) of one run.

All ranks must raise or stop together. If only one raised, the others would fail with a broken connection. If only one
stopped, the others would wait for it, or crash while the launcher reports success.
The calls to the server are in `optimizer`.
"""

import os
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from lightning_bso.errors import BSOError

Value = TypeVar("Value")


class Ranks:
    """The ranks of a run with a single process, and the base class for runs with several.

    The methods are collective: every rank must call them, in the same order.
    """

    rank = 0
    """Number of this process, from 0."""
    size = 1
    """Number of processes."""
    local_rank = 0
    """Number of this process on its node, from 0."""

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in the order of the ranks."""
        return [value]

    def on_all(self, action: Callable[[], Value]) -> list[Value]:
        """Run an action on every rank and return all results, in the order of the ranks.

        Raises:
            Exception: the action's error on this rank, else the error of the lowest rank with an error.
        """
        outcome: tuple[Value | None, Exception | None]
        try:
            outcome = action(), None
        except Exception as error:
            outcome = None, error if self.size == 1 else _picklable(error)
        outcomes = self.gather(outcome)
        for _, error_of_rank in (outcome, *outcomes):
            if error_of_rank is not None:
                raise error_of_rank
        return [value for value, _ in outcomes]  # type: ignore[misc]  # without an error there is a value

    def on_rank_zero(self, action: Callable[[], Value]) -> Value:
        """Run an action on rank 0 only. All ranks return its result or raise its error."""
        return self.on_all(lambda: action() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def mean(self, value: float | None) -> float | None:
        """Return the mean over the ranks that have a value, or None if no rank has one."""
        values = [rank_value for rank_value in self.gather(value) if rank_value is not None]
        if not values or all(rank_value == values[0] for rank_value in values):
            return values[0] if values else None  # equal values are returned without rounding
        return sum(values) / len(values)


class TorchRanks(Ranks):
    """The processes of torch.distributed's default group. Several processes must initialize the group first.

    Without a group, this process is the only rank.

    Args:
        local_rank: number of this process on its node. None: `$LOCAL_RANK`, which torchrun sets, else the rank.

    Raises:
        BSOError: `$WORLD_SIZE` says that there are several processes, but torch.distributed is not initialized.
    """

    def __init__(self, local_rank: int | None = None) -> None:
        from torch import distributed  # importing this module loads no torch

        self._all_gather: Callable[[list[Any], Any], None] | None = None
        if not (distributed.is_available() and distributed.is_initialized()):
            if os.environ.get("WORLD_SIZE", "1") == "1":
                return
            raise BSOError(
                "torch.distributed is not initialized, but WORLD_SIZE says that this run has several processes, which "
                "must agree on a batch size; call torch.distributed.init_process_group() first"
            )
        self._all_gather = distributed.all_gather_object
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank)) if local_rank is None else local_rank

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, in the order of the ranks. The values are pickled."""
        if self._all_gather is None:
            return [value]
        values: list[Value | None] = [None] * self.size
        self._all_gather(values, value)
        return values  # type: ignore[return-value]  # all_gather_object has filled the list


def _picklable(error: Exception) -> Exception:
    """Return the error if it can be pickled, else a BSOError with its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - this process pickled it
    except Exception:
        return BSOError(f"{type(error).__name__}: {error}")
    return error
