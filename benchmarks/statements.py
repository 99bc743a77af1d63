"""Counts the round trips to the database that each call takes, in an application in this process."""

from collections import defaultdict

from backend.app import create_app
from backend.config import MAX_AUTH_CACHE_S, Settings
from tests.calls import Answer, Calls
from tests.databases import round_trips

RUNS = 10


def count(database_url: str, job_id: str, policy: str) -> dict[str, set[int]]:
    """Play the runs of a new job. Returns the numbers of statements, commits and rollbacks, by the name of the call.

    The application remembers who may call, as a server does for some seconds.
    """
    app = create_app(Settings(database_url=database_url, log_level="ERROR", auth_cache_s=MAX_AUTH_CACHE_S))
    calls = Calls.through_test_client(app.test_client())
    calls.must(calls("GET", "/jobs"))
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    with round_trips(app) as sent:

        def note(name: str, answer: Answer) -> Answer:
            calls.must(answer)
            numbers[name].add(len(sent))
            sent.clear()
            return answer

        note("register", calls.register(job_id=job_id, job_id_prefix=job_id, policy=policy))
        for run in range(RUNS):
            trial = note("ask", calls.ask(job_id, f"run-{run}")).body
            cost = 10.0 + run % 3
            note("report after which the run goes on", calls.report(trial, energy=cost / 2, report_number=1))
            note("heartbeat", calls.heartbeat(trial))
            last = {"energy": cost, "metric": 1.0, "current_epoch": 2, "report_number": 2}
            note("final report", calls.report(trial, **last))
            note("end of a run that has its verdict", calls.end(trial))
            lost = calls.trial(job_id, f"lost-{run}")
            sent.clear()
            note("end of a run without a verdict", calls.end(lost))
    return dict(numbers)
