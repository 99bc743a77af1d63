"""What a use case may refuse to do. One class, one HTTP status; `api` turns them into answers."""


class ServiceError(Exception):
    """Base. The text goes to the caller: it says what happened and what to do next."""

    status = 500


class UnknownJob(ServiceError):
    """Raised when no job has the id. The user registers it first, or mends the id."""

    status = 404

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job is called {job_id!r}; register it first (POST /jobs), or check the id")


class UnknownTrial(ServiceError):
    """Raised when the job has no such trial. The caller asks for a batch size first."""

    status = 404


class JobSpecDiffers(ServiceError):
    """Raised on registering an id that stands for another spec. The user renames the job or deletes the old one."""

    status = 409


class InvalidField(ServiceError):
    """Raised when a field is well formed and cannot be meant. The user mends it.

    Attributes:
        field: its name.
        problem: what is wrong with it, and what to do.
    """

    status = 422

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class JobStuck(ServiceError):
    """Raised on asking when no batch size converged. The user relaxes the spec, or resets the job."""

    status = 409


class ReportConflict(ServiceError):
    """Raised when a report contradicts an earlier one. Totals count from the beginning of training."""

    status = 409


class UnknownToken(ServiceError):
    """Raised on revoking a token that is not there. The operator lists the tokens."""

    status = 404


class UnknownUser(ServiceError):
    """Raised on changing a user that is not there. The operator lists the users."""

    status = 404


class LabelTaken(ServiceError):
    """Raised when a token is to be made under the label of one that is still valid. The caller chooses another."""

    status = 409


class UserExists(ServiceError):
    """Raised on making a user whose name is taken. The operator changes that one, or takes another name."""

    status = 409


class UnusableName(ServiceError):
    """Raised on a name that nobody could log in with, or that others could not read. The operator takes another."""

    status = 422


class UnusablePassword(ServiceError):
    """Raised on a password that is too short, or longer than the login takes. The operator takes another."""

    status = 422


class TooManyAttempts(ServiceError):
    """Raised on trying to log in too often. The user waits."""

    status = 429


class TokenNeeded(ServiceError):
    """Raised on a call without a token that is valid. The user asks the operator for one."""

    status = 401


class TokenLacksScope(ServiceError):
    """Raised on a call that the caller's token may not make. The user asks the operator for another."""

    status = 403


class ForeignPage(ServiceError):
    """Raised on a call that a page of another server makes a browser send. Programs send Bearer, or no Origin."""

    status = 403

    def __init__(self) -> None:
        super().__init__("a web page of another server may not change anything with the token that a browser remembers")


class DatabaseUnavailable(ServiceError):
    """Raised when the database did not carry a transaction through, retries included. The caller comes again."""

    status = 503

    def __init__(self) -> None:
        super().__init__("the database is not available just now; try again in a moment")


class DatabaseUnusable(Exception):
    """Raised at the start or an upgrade when the database cannot be used. The operator looks at it."""


class SchemaOutdated(Exception):
    """Raised at the start when the database's schema is not this version's. The operator upgrades it."""
