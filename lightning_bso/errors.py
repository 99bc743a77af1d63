"""The package's errors, one class for each way in which a caller may react.

Also the functions that classify errors of other packages. They work without importing these packages.
"""

from http import HTTPStatus
from typing import Any

from lightning_bso import variables
from lightning_bso.wire import ErrorAnswer


class BSOError(Exception):
    """Base class of this package's errors."""


class ZeusBSOTrainFailError(BSOError):
    """Raised when the server ends a run that has not converged.

    The run reached `max_epochs`, its cost exceeded `beta_knob` times the lowest known cost, its metric was NaN, or its
    first epoch showed that the batch size was not worth trying.
    The server has recorded the run and its cost. Launch the training again to get the next batch size.

    Attributes:
        job_id: the job.
        trial_number: the trial that failed.
        batch_size: the trial's batch size.
        reason: the server's reason for the failure.
    """

    def __init__(self, job_id: str, trial_number: int, batch_size: int, reason: str) -> None:
        super().__init__(
            f"batch size {batch_size} (job {job_id}, trial {trial_number}) did not converge: {reason}. The server "
            "has recorded this; launch the training again to get the next batch size"
        )
        self.job_id = job_id
        self.trial_number = trial_number
        self.batch_size = batch_size
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # pickling rebuilds the error from these arguments
        return type(self), (self.job_id, self.trial_number, self.batch_size, self.reason)


class ServerUnreachable(BSOError):
    """Raised when no server answers within the timeouts and retries. Check its address, or wait.

    Attributes:
        transient: whether the same call may succeed later.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ServerRefused(BSOError):
    """Raised when the server refuses a request. The same request will be refused again.

    Attributes:
        status: HTTP status, 400 to 499.
        answer: the body of the server's answer, with every fault of the request.
    """

    def __init__(self, status: int, answer: ErrorAnswer) -> None:
        hint = f"; set {variables.TOKEN} to a valid token" if status == HTTPStatus.UNAUTHORIZED else ""
        super().__init__(f"{answer.message} (HTTP {status}){hint}")
        self.status = status
        self.answer = answer

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.status, self.answer)


class EnergyUnavailable(BSOError):
    """Raised before a run starts if its GPUs' energy cannot be read. The run's cost would be wrong."""


def is_interruption(error: BaseException) -> bool:
    """Return whether an error is an interruption after which the run may resume: Ctrl-C, or SIGTERM under Lightning."""
    return isinstance(error, KeyboardInterrupt) or _has_class_named("SIGTERMException", error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch or Python reports a lack of memory, on a GPU or on the CPU."""
    if isinstance(error, MemoryError) or _has_class_named("OutOfMemoryError", error):
        return True
    phrases = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")  # the last from cuBLAS and cuDNN
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)


def _has_class_named(name: str, error: BaseException) -> bool:
    """Return whether the error's class, or a base of it, has this name. The class's package need not be installed."""
    return any(cls.__name__ == name for cls in type(error).__mro__)
