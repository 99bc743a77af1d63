"""The errors that a caller may catch, sorted by what they can do about it."""

from typing import Any

from lightning_bso.wire import ErrorAnswer


class BSOError(Exception):
    """Base of every error of this package."""


class ZeusBSOTrainFailError(BSOError):
    """Raised when the server ends a run that has not converged.

    The run exceeded `max_epochs`, its cost passed `beta_knob` times the lowest known, or its metric was
    NaN. What it cost is on record: launch the training again, and it is given another batch size.

    Attributes:
        job_id: the job.
        trial_number: the trial that failed.
        batch_size: the batch size that it had.
        reason: why it failed, in the server's words.
    """

    def __init__(self, job_id: str, trial_number: int, batch_size: int, reason: str) -> None:
        super().__init__(
            f"batch size {batch_size} (job {job_id}, trial {trial_number}) did not converge: {reason}. This is on "
            "record: launch the training again, and its batch size is chosen with that in mind"
        )
        self.job_id = job_id
        self.trial_number = trial_number
        self.batch_size = batch_size
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # so that it survives the way from one process to another
        return type(self), (self.job_id, self.trial_number, self.batch_size, self.reason)


class ServerUnreachable(BSOError):
    """Raised when no server answers within the timeouts and retries. Check its address, or wait."""


class ServerRefused(BSOError):
    """Raised when the server answers that it will not do this. Repeating the call will not help.

    Attributes:
        status: HTTP status, 400 … 499.
        answer: what the server said, with every fault of the request.
    """

    def __init__(self, status: int, answer: ErrorAnswer) -> None:
        super().__init__(f"{answer.message} (HTTP {status})")
        self.status = status
        self.answer = answer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.answer)


class EnergyUnavailable(BSOError):
    """Raised when a run uses GPUs whose energy cannot be read. Its cost would be wrong, so it is not begun."""


def is_interruption(error: BaseException) -> bool:
    """Whether an error stops a run from outside, so that it may go on later: Ctrl-C, or Lightning's for SIGTERM."""
    return isinstance(error, KeyboardInterrupt) or _is_a("SIGTERMException", error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, in torch's words or Python's, on a GPU or the CPU."""
    if isinstance(error, MemoryError) or _is_a("OutOfMemoryError", error):
        return True
    said = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")  # the last by cuBLAS and cuDNN
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def _is_a(name: str, error: BaseException) -> bool:
    """Whether an error is one of a class by this name, whose package need not be installed."""
    return any(kind.__name__ == name for kind in type(error).__mro__)
