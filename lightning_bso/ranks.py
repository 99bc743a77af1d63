"""The processes of one run: what one of them decides, and what goes wrong in any, all of them know.

If one process alone raised, the others would die of a broken connection; if one alone stopped, the others would wait
for it, or crash while the launcher reports success. What is asked and reported is in `optimizer.py`.
"""

import os
import pickle
from collections.abc import Callable
from typing import Any, TypeVar

from lightning_bso.errors import BSOError

Value = TypeVar("Value")


class Ranks:
    """The processes of a run that has only this one, and what several have in common.

    Its methods are collective: every rank must call them, in the same order.
    """

    rank = 0
    """Number of this process, from 0."""
    size = 1
    """How many there are."""
    local_rank = 0
    """Number of this process on its node."""

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in the order of the ranks."""
        return [value]

    def on_all(self, action: Callable[[], Value]) -> list[Value]:
        """What an action returns on each rank.

        Raises:
            Exception: what it raised here; where it raised elsewhere only, the first rank's that did.
        """
        outcome: tuple[Value | None, Exception | None]
        try:
            outcome = action(), None
        except Exception as error:
            outcome = None, error if self.size == 1 else _portable(error)
        outcomes = self.gather(outcome)
        for _, problem in (outcome, *outcomes):
            if problem is not None:
                raise problem
        return [value for value, _ in outcomes]  # type: ignore[misc]  # without an error it is there

    def from_zero(self, action: Callable[[], Value]) -> Value:
        """What an action returns on rank 0, the only one to run it; all ranks raise what it raises."""
        return self.on_all(lambda: action() if self.rank == 0 else None)[0]  # type: ignore[return-value]

    def mean(self, value: float | None) -> float | None:
        """The mean of the ranks' values, but for those that have none; None if none has one."""
        values = [each for each in self.gather(value) if each is not None]
        if not values or all(each == values[0] for each in values):
            return values[0] if values else None  # unrounded
        return sum(values) / len(values)


class TorchRanks(Ranks):
    """The processes of torch.distributed's default group, which must have been initialized if there are several.

    Without a group a process that was launched by itself is the only one.

    Args:
        local_rank: number of this process on its node; None: `$LOCAL_RANK`, as torchrun sets it, or else its rank.

    Raises:
        BSOError: torch.distributed is not initialized, and `$WORLD_SIZE` tells of several processes.
    """

    def __init__(self, local_rank: int | None = None) -> None:
        from torch import distributed  # importing this module loads no torch

        self._all_gather: Callable[[list[Any], Any], None] | None = None
        if not (distributed.is_available() and distributed.is_initialized()):
            if os.environ.get("WORLD_SIZE", "1") == "1":
                return
            raise BSOError(
                "torch.distributed is not initialized, and through it the processes of a run agree on a batch size; "
                "call torch.distributed.init_process_group() before"
            )
        self._all_gather = distributed.all_gather_object
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank)) if local_rank is None else local_rank

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in the order of the ranks; they are pickled on the way."""
        if self._all_gather is None:
            return [value]
        values: list[Value | None] = [None] * self.size
        self._all_gather(values, value)
        return values  # type: ignore[return-value]  # filled by now


def _portable(error: Exception) -> Exception:
    """The error if it survives the way to another process, else its text."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return BSOError(f"{type(error).__name__}: {error}")
    return error
