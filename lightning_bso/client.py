"""The protocol's calls as methods. No state of a run lives here.

How a request reaches the server, and what happens if it does not, is in `transport`.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from lightning_bso.errors import BSOError, ServerRefused, ServerUnreachable
from lightning_bso.transport import Transport
from lightning_bso.wire import (
    AFTER_PATH,
    DOCUMENT_PATH,
    EXPORTED_REPORTS_PATH,
    EXPORTED_TRIALS_PATH,
    HEARTBEAT_PATH,
    JOBS_PATH,
    MAX_PAGE,
    PROBE_PATH,
    READY_PATH,
    REPORT_PATH,
    TRIALS_PATH,
    AfterRequest,
    AskAnswer,
    AskRequest,
    Document,
    EndAnswer,
    ExportQuery,
    HeartbeatAnswer,
    HeartbeatRequest,
    JobBelief,
    JobPage,
    JobSavings,
    JobsQuery,
    JobSummary,
    PageQuery,
    Policy,
    ProbeRequest,
    RegisteredJobSpec,
    ReportAnswer,
    ReportRequest,
    TrialPage,
    TrialRequest,
    Wire,
)

Answer = TypeVar("Answer", bound=Wire)


class BsoClient:
    """Calls one server. Not for use by several threads at once.

    Args:
        server_url: address of the server, such as `http://bso.example:8000`. A path in it is kept.
        token: access token, sent as `Authorization: Bearer …`.

    Raises:
        ValueError: `server_url` is not an http(s) address, or `token` cannot be sent.
    """

    def __init__(self, server_url: str, token: str | None = None) -> None:
        self._transport = Transport(server_url, token)

    def register(self, spec: RegisteredJobSpec) -> RegisteredJobSpec:
        """Register a job and return its spec with the `job_id`. The same spec sent again changes nothing.

        Raises:
            ServerRefused: 409, the id belongs to a job with another spec; 422, the spec is not valid to this server.
            ServerUnreachable: no answer.
        """
        try:
            return self._call("POST", JOBS_PATH, RegisteredJobSpec, body=spec)
        except ServerRefused as error:
            if error.status != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            # The spec is valid here. A server of another version may not know all of it.
            servers = own = None
            with suppress(BSOError, PackageNotFoundError):
                servers, own = self.server_version(), version("lightning-bso")
            if servers == own:
                raise
            hint = f"the server is lightning-bso {servers} and this is {own}, which may be why"
            answer = error.answer.model_copy(update={"message": f"{error.answer.message}; {hint}"})
            raise ServerRefused(error.status, answer) from error

    def ask(
        self,
        job_id: str,
        run_id: str,
        *,
        resumes: bool = True,
        process: str | None = None,
        takes_over: str | None = None,
        stops: bool = True,
    ) -> AskAnswer:
        """Ask for the batch size of a run. The same run always gets the same trial.

        If another process holds the trial, the answer names it as `held_by`, and the trial is not the caller's.

        Args:
            job_id: the job.
            run_id: the run's name.
            resumes: whether the run also resumes a trial whose fit ended without a verdict.
            process: name of the caller's process. None: the caller gets the trial, whoever holds it.
            takes_over: name of the process from which to take the trial over.
            stops: whether the training stops at its verdict.

        Raises:
            ServerRefused: 400, no such job; 409, no batch size is left.
            ServerUnreachable: no answer.
        """
        request = AskRequest(
            job_id=job_id,
            run_id=run_id,
            host=socket.gethostname() or None,
            resumes=resumes,
            process=process,
            takes_over=takes_over,
            stops=stops,
        )
        return self._call("POST", TRIALS_PATH, AskAnswer, body=request)

    def report(self, request: ReportRequest) -> ReportAnswer:
        """Report the result of a validation. Takes hardly longer than `transport.READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 400, no such job or trial; 409, the report contradicts an earlier one.
            ServerUnreachable: no answer. Send the same report again later.
        """
        return self._call("POST", REPORT_PATH, ReportAnswer, body=request, patient=False)

    def heartbeat(self, request: HeartbeatRequest) -> HeartbeatAnswer:
        """Renew the lease of a trial whose run is alive. Takes hardly longer than `transport.READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 400, no such job or trial.
            ServerUnreachable: no answer.
        """
        return self._call("POST", HEARTBEAT_PATH, HeartbeatAnswer, body=request, patient=False)

    def probe(self, request: ProbeRequest) -> None:
        """Report a probe of batch sizes. Only a job's first probe counts. Takes as long as `report`.

        Raises:
            ServerRefused: 400, no such job or trial; 422, the probe names a batch size that the job does not have.
            ServerUnreachable: no answer.
        """
        self._transport.send("POST", PROBE_PATH, body=request, patient=False)

    def after(self, request: AfterRequest) -> None:
        """Report what a run has used since its verdict. Takes hardly longer than `transport.READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 400, no such job or trial; 409, the trial has no verdict.
            ServerUnreachable: no answer.
        """
        self._transport.send("POST", AFTER_PATH, body=request, patient=False)

    def end(self, request: TrialRequest) -> EndAnswer:
        """End a trial that will not report again. Takes hardly longer than `transport.READ_TIMEOUT_S`.

        Raises:
            ServerRefused: 404, no such job or trial.
            ServerUnreachable: no answer.
        """
        return self._call("PATCH", TRIALS_PATH, EndAnswer, body=request, patient=False)

    def describe(self, job_id: str) -> JobSummary:
        """Return the current state of a job.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id), JobSummary, patient=False)

    def list_trials(self, job_id: str, offset: int = 0, limit: int = MAX_PAGE) -> TrialPage:
        """Return a part of a job's trials, by rising number.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id) + "/trials", TrialPage, query=PageQuery(offset=offset, limit=limit))

    def get_belief(self, job_id: str) -> JobBelief:
        """Return the cost that the job's policy expects of each batch size, and the next run's batch size.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id) + "/belief", JobBelief)

    def get_savings(self, job_id: str) -> JobSavings:
        """Return what a job spent, and its savings compared with the default and with the best batch size.

        Raises:
            ServerRefused: 404, no such job.
            ServerUnreachable: no answer.
        """
        return self._call("GET", _job_path(job_id) + "/savings", JobSavings)

    def list_jobs(
        self,
        offset: int = 0,
        limit: int = MAX_PAGE,
        *,
        contains: str | None = None,
        policy: Policy | None = None,
        gpu_model: str | None = None,
        paused: bool | None = None,
    ) -> JobPage:
        """Return a part of the jobs, newest first. A filter that is None is not applied.

        Args:
            offset: how many jobs to skip.
            limit: how many jobs to return at most.
            contains: a part of the id.
            policy: the policy that picks the batch sizes.
            gpu_model: the GPU model.
            paused: whether the job is paused.

        Raises:
            ServerUnreachable: no answer.
        """
        query = JobsQuery(
            offset=offset, limit=limit, contains=contains, policy=policy, gpu_model=gpu_model, paused=paused
        )
        return self._call("GET", JOBS_PATH, JobPage, query=query)

    def export(
        self, table: Literal["trials", "reports"], kind: Literal["csv", "parquet"] = "csv", jobs: Sequence[str] = ()
    ) -> AbstractContextManager[Iterator[bytes]]:
        """Get a file of all trials or all reports, in pieces: `with client.export("trials") as pieces: …`.

        Args:
            table: what is in the file.
            kind: format of the file.
            jobs: ids of jobs; none: all jobs.

        Raises:
            ServerRefused: there is no such job, or the server cannot write Parquet.
            ServerUnreachable: no answer, or it breaks off.
        """
        path = EXPORTED_TRIALS_PATH if table == "trials" else EXPORTED_REPORTS_PATH
        return self._transport.stream(path, ExportQuery(format=kind, job_id=list(jobs)))

    @property
    def address(self) -> str:
        """Address of the server, without a password that the address may contain."""
        return self._transport.shown_url

    def server_version(self) -> str:
        """Return the server's version. The call needs no token.

        Raises:
            ServerUnreachable: no answer, or the answer of another kind of server.
        """
        return self._call("GET", DOCUMENT_PATH, Document, patient=False).info.version

    def check_ready(self) -> None:
        """Check that the server's database answers and has the right schema. The call needs no token.

        Raises:
            ServerUnreachable: it does not, or the server does not answer.
        """
        self._transport.send("GET", READY_PATH, patient=False)

    def _call(
        self,
        method: str,
        path: str,
        answer: type[Answer],
        *,
        body: Wire | None = None,
        query: Wire | None = None,
        patient: bool = True,
    ) -> Answer:
        content = self._transport.send(method, path, body=body, query=query, patient=patient)
        try:
            return answer.model_validate_json(content)
        except ValidationError as error:
            raise ServerUnreachable(
                f"{self.address} answered {method} {path} with something other than a {answer.__name__}; "
                "is that the address of a batch-size-optimizer server?"
            ) from error


def _job_path(job_id: str) -> str:
    return f"{JOBS_PATH}/{quote(job_id, safe='')}"
