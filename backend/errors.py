"""The errors of the server. A `ServiceError` refuses a call and has an HTTP status.

`backend.app` turns each ServiceError into an HTTP answer, `backend.cli` into a message on the command line.
"""


class ServiceError(Exception):
    """Base of all refusals. The caller receives the text, which says what happened and what to do next."""

    status = 500


class UnknownJob(ServiceError):
    """Raised when no job has the id. The user registers the job, or corrects the id."""

    status = 404

    def __init__(self, job_id: str) -> None:
        super().__init__(f"there is no job {job_id!r}; register it first (POST /jobs), or check the id")


class UnknownTrial(ServiceError):
    """Raised when the job has no trial with this number and batch size. The caller asks for a batch size first."""

    status = 404


class JobSpecDiffers(ServiceError):
    """Raised when a job is registered with another spec. The user renames the new job or deletes the old one."""

    status = 409


class InvalidField(ServiceError):
    """Raised when a field is well formed but its value cannot be accepted. The user corrects the value.

    Attributes:
        field: name of the field.
        problem: what is wrong with its value, and what to do.
    """

    status = 422

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class ReportsRemoved(ServiceError):
    """Raised when a job cannot be replayed, because reports of its trials were removed. Nothing needs to be done."""

    status = 409


class ParquetMissing(ServiceError):
    """Raised when the server cannot write Parquet. The operator installs pyarrow, or the caller asks for CSV."""

    status = 501

    def __init__(self) -> None:
        super().__init__(
            "this server cannot write Parquet, because pyarrow is not installed there; ask for CSV, or let its "
            "operator install it: pip install 'lightning-bso[parquet]'"
        )


class JobStuck(ServiceError):
    """Raised when no batch size is left to dispatch. The user registers a relaxed spec, or resets the job."""

    status = 409


class ReportConflict(ServiceError):
    """Raised when a report contradicts an earlier report. The caller reports totals since the training began."""

    status = 409


class UnknownToken(ServiceError):
    """Raised when a token to revoke does not exist. The operator lists the tokens."""

    status = 404


class UnknownUser(ServiceError):
    """Raised when a user to change does not exist. The operator lists the users."""

    status = 404


class LabelTaken(ServiceError):
    """Raised when a valid token already has the label of a new token. The operator chooses another label."""

    status = 409


class UserExists(ServiceError):
    """Raised when the name of a new user is taken. The operator changes the existing user, or chooses another name."""

    status = 409


class UnusableName(ServiceError):
    """Raised when a user's name cannot be typed or displayed. The operator chooses another name."""

    status = 422


class UnusablePassword(ServiceError):
    """Raised when a password is too short, or longer than the login accepts. The user chooses another password."""

    status = 422


class TooManyAttempts(ServiceError):
    """Raised when too many logins of an account or from an address have failed. The user waits."""

    status = 429


class TokenNeeded(ServiceError):
    """Raised when a call has no valid token. The user asks the operator for a token."""

    status = 401


class TokenLacksScope(ServiceError):
    """Raised when the scope or role does not allow a call. The user asks the operator for more rights."""

    status = 403


class ForeignPage(ServiceError):
    """Raised when a web page of another server makes a browser send a call. Programs send Bearer, or no Origin."""

    status = 403

    def __init__(self) -> None:
        super().__init__(
            "a web page of another server may not use the token that a browser remembers; send the call from a program"
        )


class DatabaseUnavailable(ServiceError):
    """Raised when a transaction failed, retries included. The caller retries later.

    Args:
        cause: what is wrong and what the operator can do; None: nothing is known, so it may pass.
    """

    status = 503

    def __init__(self, cause: str | None = None) -> None:
        super().__init__(cause or "the database is not available at the moment; retry later")


class DatabaseUnusable(Exception):
    """Raised when the database cannot be used, at startup or on an upgrade. The operator checks the database."""


class SchemaOutdated(Exception):
    """Raised when the program and the database's schema differ in version. The operator upgrades the older of them."""
