"""Random histories of jobs: whatever the calls of several runs at once, and in whatever order, some facts hold.

Runs report, lose answers, repeat calls, end, come back and vanish. Users reset, pause and delete jobs. After each call,
the job that it was about is read, and compared with what was read before.
"""

from dataclasses import dataclass, field
from typing import Any

import pytest
from flask import Flask
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from backend.usecases import jobs, reading, runs
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import TrialRequest
from tests import specs
from tests.backend.sums import kept_sums, sums_of
from tests.calls import Answer, Calls
from tests.databases import let_time_pass
from tests.fuzzing import settings_for

HISTORIES, MANY_HISTORIES = 4, 25
STEPS, MANY_STEPS = 25, 60
MANY_REQUESTS = 5_000
"""With each policy on each database."""
MAX_RUNNING = 5
LEASE_S = 3600
ENDED = ("Succeeded", "Calibrated", "Failed")

Usage = tuple[int, int, int]
"""Energy in joules, time in seconds and epochs since the last report."""

processes = st.sampled_from([None, "one", "two"])
usages = st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 1))
metrics = st.sampled_from([0.1, 0.3, 0.45, 0.5, 0.55, 0.7, 0.9])
reasons = st.sampled_from([None, "a broken pipe", "a broken loader"])
ways_to_end = st.sampled_from([{}, {"over": True}, {"unfit": True}, {"misconfigured": True}])
specs_of_jobs = st.fixed_dictionaries(
    {
        "target_metric": st.sampled_from([0.5, 0.5, None]),
        "batch_sizes": st.sampled_from([[16], [8, 16], [8, 16, 32], [8, 16, 32, 64]]),
        "beta_knob": st.sampled_from([None, 1.0, 1.5, 2.0, 4.0]),
        "eta_knob": st.sampled_from([0.0, 0.5, 1.0]),
        "max_epochs": st.integers(1, 4),
        "num_pruning_rounds": st.sampled_from([1, 2, 0]),
        "mab_num_explorations": st.integers(0, 2),
        "window_size": st.integers(0, 2),
        "mab_seed": st.integers(0, 9),
        "higher_is_better_metric": st.booleans(),
        "calibration_runs": st.integers(1, 2),
        "target_tolerance": st.sampled_from([0.0, 0.5]),
    }
)


@dataclass
class Run:
    """A run, as its training knows it."""

    registration: int
    """Which registration of the job the run belongs to."""
    run_id: str
    trial: dict[str, Any]
    energy: float = 0.0
    time: float = 0.0
    epoch: int = 0
    reports: list[tuple[dict[str, Any], Answer]] = field(default_factory=list)
    """The reports that the server has stored, with their answers."""


@dataclass
class Job:
    """A registered job, as the last call left it."""

    registration: int
    spec: dict[str, Any]
    trials: dict[int, dict[str, Any]] = field(default_factory=dict)
    """The trials by number."""
    once_lost: set[int] = field(default_factory=set)
    """The trials that were failed at any time. A report may have revived them."""
    savings: dict[str, Any] | None = None
    exploration: int = 0
    paused: bool = False
    belief: dict[str, Any] = field(default_factory=dict)
    overdue: bool = False
    """Whether a lease may have expired since the last ask."""

    def converged(self, exploration: int) -> list[dict[str, Any]]:
        """Return the trials that have converged."""
        return [trial for trial in self.trials.values() if trial["exploration"] == exploration and trial["converged"]]

    def bound(self, exploration: int) -> float | None:
        """Return `zeus`' cost bound: `beta_knob` times the lowest cost above 0 of a converged run; None: none."""
        costs = [trial["cost"] for trial in self.converged(exploration) if trial["cost"] > 0]
        return self.spec["beta_knob"] * min(costs) if costs and self.spec["beta_knob"] is not None else None


class History(RuleBasedStateMachine):
    """The calls, and the facts that hold after each."""

    app: Flask
    calls: Calls
    database_url: str
    policy: str

    running = Bundle("running")
    over = Bundle("over")
    """Runs that their training takes for ended."""

    def __init__(self) -> None:
        super().__init__()
        self.job: Job | None = None
        self.registrations = self.asks = self.interventions = 0
        self.calls.delete()

    @initialize(changed=specs_of_jobs)
    def begin(self, changed: dict[str, Any]) -> None:
        self.register(changed)

    @precondition(lambda self: self.job is None)
    @rule(changed=specs_of_jobs)
    def register(self, changed: dict[str, Any]) -> None:
        assert self.calls.ask().status == 400
        spec = changed | {"policy": self.policy}
        assert self.calls.register(**spec).status == 201
        assert self.calls.register(**spec).status == 200
        self.registrations += 1
        self.job = Job(self.registrations, specs.job(**spec))

    @precondition(lambda self: self.job is not None and len(self.bundle("running")) < MAX_RUNNING)
    @rule(target=running, asks=st.integers(1, 3), process=processes, repeated=st.booleans())
    def ask(self, asks: int, process: str | None, repeated: bool) -> Any:
        new = []
        for _ in range(asks):
            self.asks += 1
            run_id = f"run-{self.asks}"
            answer = self.calls.ask(run_id=run_id, process=process)
            self.check_choice(answer)
            if answer.status == 409:
                assert self.calls.describe()["stage"] == "Stuck"
                break
            new.append(Run(self.registrations, run_id, self.calls.must(answer)))
            if repeated:
                assert self.calls.ask(run_id=run_id, process=process) == answer
            self.facts_hold()
        return multiple(*new)

    @rule(run=running | over, resumes=st.booleans(), process=processes, takes_over=processes)
    def ask_again(self, run: Run, resumes: bool, process: str | None, takes_over: str | None) -> None:
        if self.is_known(run):
            options = {"resumes": resumes, "process": process, "takes_over": takes_over}
            trial = self.calls.trial(run_id=run.run_id, **options)
            for name in ("trial_number", "batch_size", "type", "reason"):
                assert trial[name] == run.trial[name]
            assert trial["report_number"] == len(run.reports)

    @rule(run=running, used=usages, metric=metrics, repeated=st.booleans())
    def report(self, run: Run, used: Usage, metric: float, repeated: bool) -> None:
        self.report_on(run, used, {"metric": metric}, repeated)

    @rule(target=over, run=consumes(running), used=usages, metric=st.sampled_from([0.45, 0.5, 0.55]))
    def reach_the_target(self, run: Run, used: Usage, metric: float) -> Run:
        for reached in (metric, 1.0 - metric):  # whether more or less is better
            self.report_on(run, used, {"metric": reached}, repeated=True)
        return run

    @rule(target=over, run=consumes(running), used=usages, out_of_memory=st.booleans())
    def fail(self, run: Run, used: Usage, out_of_memory: bool) -> Run:
        self.report_on(run, used, {"metric": None, "out_of_memory": out_of_memory}, repeated=False)
        return run

    @rule(run=over, used=usages, metric=metrics)
    def report_after_the_end(self, run: Run, used: Usage, metric: float) -> None:
        self.report_on(run, used, {"metric": metric}, repeated=True)

    @rule(run=running | over, data=st.data())
    def repeat_an_old_report(self, run: Run, data: st.DataObject) -> None:
        if run.reports and self.is_known(run):
            body, answer = data.draw(st.sampled_from(run.reports))
            assert self.send_report(run, body) == answer

    @rule(run=running | over, limit=st.sampled_from([None, 4, 8]))
    def heartbeat(self, run: Run, limit: int | None) -> None:
        self.must_know(run, self.calls.heartbeat(run.trial, run_id=run.run_id, max_device_batch_size=limit))

    @rule(run=running | over, used=usages, metric=metrics)
    def after(self, run: Run, used: Usage, metric: float) -> None:
        before = self.trial_of(run)
        has_verdict = before is not None and before["status"] in ("Succeeded", "Calibrated")
        used_since = {"energy": used[0], "time": used[1], "metric": metric}
        self.must_know(
            run, self.calls("POST", "/trials/after", self.key(run) | used_since), 200 if has_verdict else 409
        )

    @rule(run=running, energy=st.integers(1, 20), fits=st.lists(st.booleans(), max_size=4))
    def probe(self, run: Run, energy: int, fits: list[bool]) -> None:
        if self.is_known(run):
            sizes = [
                {"batch_size": size, "fits": fit, "time": 1, "energy": 1}
                | ({"epoch_time": 1.0, "epoch_energy": energy + size} if fit else {})
                for size, fit in zip(self.job.spec["batch_sizes"], fits, strict=False)
            ]
            self.must_know(run, self.calls("POST", "/trials/probe", self.key(run) | {"sizes": sizes}))

    @rule(
        target=over, run=consumes(running), reason=reasons, how=ways_to_end, process=processes, repeated=st.booleans()
    )
    def end(self, run: Run, reason: str | None, how: dict[str, bool], process: str | None, repeated: bool) -> Run:
        fields = {"run_id": run.run_id, "reason": reason, "process": process, "current_epoch": run.epoch} | how
        answer = self.calls.end(run.trial, **fields)
        self.must_know(run, answer)
        if repeated and answer.status == 200:
            again = self.calls.end(run.trial, **fields)
            assert (again.body or {}).get("ruled_out") == (answer.body or {}).get("ruled_out")
        return run

    @rule(run=running)
    def expire(self, run: Run) -> None:
        if self.job is not None and self.is_known(run):
            self.job.overdue = True
            let_time_pass(self.database_url, "train", run.trial["trial_number"], LEASE_S + 1)

    @precondition(lambda self: self.job is not None and self.asks > 4 * self.interventions)
    @rule(intervention=st.sampled_from(["pause", "stop", "reset", "delete"]))
    def intervene(self, intervention: str) -> None:
        """Do what only users do. A paused job goes on first."""
        assert self.job is not None
        self.interventions += 1
        with self.app.app_context():
            if intervention == "pause" or self.job.paused:
                self.job.paused = not self.job.paused
                jobs.pause("train", paused=self.job.paused, by=COMMAND_LINE)
            elif intervention == "stop" and self.job.trials:
                last = self.job.trials[max(self.job.trials)]
                named = {name: last[name] for name in ("trial_number", "batch_size")}
                runs.end(TrialRequest(job_id="train", **named), by=COMMAND_LINE, lease_s=LEASE_S, by_user=True)
            elif intervention == "reset":
                self.calls.must(self.calls.reset())
                self.job.exploration += 1
            elif intervention == "delete":
                self.calls.must(self.calls.delete())
                self.job = None

    def report_on(self, run: Run, used: Usage, result: dict[str, Any], repeated: bool) -> None:
        """Send the next report of a run. If its answer is lost, the run sends it again."""
        energy, time, epochs = used
        body = {
            "run_id": run.run_id,
            "report_number": len(run.reports) + 1,
            "energy": run.energy + energy,
            "time": run.time + time,
            "current_epoch": run.epoch + epochs,
        } | result
        before = self.trial_of(run)
        answer = self.send_report(run, body)
        if before is None:
            return
        if before["status"] in ENDED and before["outcome_code"] != "lost":
            assert answer.body["stop_train"]
        else:
            run.energy, run.time, run.epoch = body["energy"], body["time"], body["current_epoch"]
            run.reports.append((body, answer))
            self.check_verdict(run, before, body, answer.body)
        if repeated:
            assert self.send_report(run, body) == answer
        self.facts_hold()

    @invariant()
    def facts_hold(self) -> None:
        if self.job is not None:
            before, records = self.job.trials, self.calls.records()
            self.job.trials = {record["trial_number"]: record for record in records}
            explorations = [record["exploration"] for record in records]
            self.job.exploration = max(self.job.exploration, *explorations, 0)
            self.check_trials(self.job, before)
            self.check_exploration(self.job, before)
            self.check_bound(self.job)
            self.check_savings(self.job, before)
            self.check_listing(records)
            assert kept_sums(self.database_url) == sums_of(self.job.spec, records)
            with self.app.app_context():
                assert reading.replay_job("train") == (len(records), [])

    def check_trials(self, job: Job, before: dict[int, dict[str, Any]]) -> None:
        """Numbers have no gap. A choice and a verdict never change, and what a run has used never falls."""
        assert list(job.trials) == list(range(1, len(job.trials) + 1))
        for number, earlier in before.items():
            record = job.trials[number]
            frozen = ["run_id", "exploration", "batch_size", "type", "reason", "started_at"]
            if earlier["status"] == "Succeeded":
                frozen += [
                    "status",
                    "converged",
                    "outcome_code",
                    "outcome",
                    "energy",
                    "time",
                    "current_epoch",
                    "ended_at",
                ]
            if earlier["status"] == "Calibrated":
                assert record["status"] == "Calibrated" or record["converged"]
            for name in frozen:
                assert record[name] == earlier[name], name
            for name in ("energy", "time"):
                assert record[name] + record[f"{name}_after"] >= earlier[name] + earlier[f"{name}_after"]

    def check_exploration(self, job: Job, before: dict[int, dict[str, Any]]) -> None:
        """Under `zeus`, a round tries each batch size with one run, and waits for it.

        A lost run is replaced. If it comes back and ends first, the round does not wait for its replacement.
        """
        exploring = [record for record in job.trials.values() if record["type"] == "Pruning"]
        came_back = {
            (record["exploration"], record["batch_size"])
            for record in exploring
            if record["trial_number"] in job.once_lost and record["status"] == "Succeeded"
        }
        for record in exploring:
            if record["trial_number"] not in before:
                awaited = {
                    other["trial_number"]
                    for other in exploring
                    if other["status"] == "Dispatched"
                    and other["exploration"] == record["exploration"]
                    and (other["exploration"], other["batch_size"]) not in came_back
                }
                assert awaited - job.once_lost <= {record["trial_number"]}
        job.once_lost |= {record["trial_number"] for record in job.trials.values() if record["status"] == "Failed"}
        kept = [
            (record["exploration"], record["batch_size"])
            for record in exploring
            if record["trial_number"] not in job.once_lost
        ]
        assert all(kept.count(one) <= job.spec["num_pruning_rounds"] for one in kept)

    def check_bound(self, job: Job) -> None:
        """The bound of the next run comes from a converged run."""
        belief = self.calls.must(self.calls("GET", "/jobs/train/belief"))
        job.belief = belief
        is_bound = not job.paused and belief["next_batch_size"] and not belief["next_reason"].startswith("calibration")
        bound = job.bound(job.exploration) if is_bound else None
        if job.spec["policy"] == "zeus":
            assert belief["cost_bound"] == bound
        else:
            # What an epoch costs may be known from other runs if those that converged cost nothing.
            assert belief["cost_bound"] is None or (is_bound and job.converged(job.exploration))

    def check_choice(self, answer: Answer) -> None:
        """A run gets the batch size that the belief has announced."""
        assert self.job is not None
        if not self.job.overdue:
            announced = self.job.belief["next_batch_size"], self.job.belief["next_reason"]
            if announced[0] is None:
                assert answer.status == 409, answer.text
            else:
                trial = self.calls.must(answer)
                assert (trial["batch_size"], trial["reason"]) == announced
        self.job.overdue = False

    def check_savings(self, job: Job, before: dict[int, dict[str, Any]]) -> None:
        """A job has spent what its ended runs have used. This never falls, unless a lost run comes back."""
        ended = [record for record in job.trials.values() if record["status"] in ENDED]
        savings = self.calls.must(self.calls("GET", "/jobs/train/savings"))
        assert savings["launches"] == len(ended)
        assert savings["recurrences"] == sum(bool(record["converged"]) for record in ended)
        for name in ("energy", "time"):
            assert savings["spent"][name] == pytest.approx(sum(record[name] for record in ended))
        is_final = all(
            job.trials[number]["status"] == earlier["status"]
            for number, earlier in before.items()
            if earlier["status"] in ENDED
        )
        if job.savings is not None and is_final:
            assert savings["launches"] >= job.savings["launches"]
            assert all(savings["spent"][name] >= job.savings["spent"][name] for name in ("energy", "time", "cost"))
        job.savings = savings

    def check_listing(self, records: list[dict[str, Any]]) -> None:
        (listed,), described = self.calls.must(self.calls("GET", "/jobs"))["jobs"], self.calls.describe()
        for size in ("recommended_batch_size", "best_batch_size"):
            assert listed[size] == described[size]
        running = sum(record["status"] == "Dispatched" for record in records)
        assert (listed["trials"], listed["running"]) == (len(records), running)

    def check_verdict(self, run: Run, before: dict[str, Any], body: dict[str, Any], verdict: dict[str, Any]) -> None:
        """Under `zeus`, a run is stopped just when its cost exceeds the bound."""
        job = self.job
        assert job is not None
        bound = job.bound(before["exploration"])
        if job.spec["policy"] != "zeus" or before["type"] in ("Calibration", "Paused") or body.get("out_of_memory"):
            return
        exceeds = bound is not None and verdict["cost"] > bound
        assert (verdict["reason"] == "cost_bound") == exceeds

    def send_report(self, run: Run, body: dict[str, Any]) -> Answer:
        answer = self.calls.report(run.trial, **body)
        self.must_know(run, answer)
        return answer

    def must_know(self, run: Run, answer: Answer, expected: int = 200) -> None:
        """Check the status of a call of a run. A run of a job that was deleted since is unknown."""
        if self.is_known(run):
            assert answer.status == expected, answer.text
        else:
            assert answer.status in (400, 404), answer.text

    def is_known(self, run: Run) -> bool:
        return self.job is not None and self.job.registration == run.registration

    def key(self, run: Run) -> dict[str, Any]:
        return {"job_id": "train", "trial_number": run.trial["trial_number"], "run_id": run.run_id}

    def trial_of(self, run: Run) -> dict[str, Any] | None:
        return self.job.trials[run.trial["trial_number"]] if self.job is not None and self.is_known(run) else None


@pytest.mark.timeout(900)  # Hypothesis takes up to 300 s to simplify a history in which a fact does not hold
@pytest.mark.parametrize("policy", ["zeus", "gp-ucb"])
def test_the_facts_hold_in_random_histories(
    app: Flask, calls: Calls, database_url: str, request: pytest.FixtureRequest, policy: str
) -> None:
    sent = 0

    def send(method: str, path: str, body: str | bytes | None) -> Answer:
        nonlocal sent
        sent += 1
        answer = calls.send(method, path, body)
        assert answer.status < 500, answer.text
        return answer

    class Here(History):
        pass

    Here.app, Here.calls, Here.database_url, Here.policy = app, Calls(send), database_url, policy
    many = request.config.getoption("many_examples")
    steps = MANY_STEPS if many else STEPS
    run_state_machine_as_test(Here, settings=settings_for(request, HISTORIES, MANY_HISTORIES, steps))
    print(f"{sent} requests")
    if many:
        assert sent >= MANY_REQUESTS
