"""What is stored comes back as it was: every digit of a number, and every character of a text."""

import random

from tests.calls import Calls

ODD = "a\"b\\c'd%s:e{f}\u2028é😀"


def test_the_totals_of_a_run_come_back_exactly(calls: Calls) -> None:
    digits = random.Random(1)
    totals = sorted([5e-324, 0.1 + 0.2, 1 / 3, 2.0**53 + 2, 1e30, *(digits.uniform(0, 10.0**n) for n in range(-9, 29))])
    calls.register(beta_knob=None, max_epochs=100)
    trial = calls.trial(run_id="run")
    for number, total in enumerate(totals, 1):
        calls.must(calls.report(trial, time=total, energy=total, report_number=number))
        resumed = calls.trial(run_id="run")
        assert (resumed["time"], resumed["energy"], resumed["report_number"]) == (total, total, number)


def test_the_names_of_a_job_a_run_and_a_process_come_back_exactly(calls: Calls) -> None:
    calls.register(job_id=ODD, job_id_prefix=ODD, gpu_model=ODD)
    trial = calls.trial(ODD, run_id=ODD, host=ODD, process=ODD)
    assert trial["job_id"] == ODD
    assert calls.trial(ODD, run_id=ODD, process="another")["held_by"] == ODD
    calls.must(calls.end(trial, reason=ODD))
    (record,) = calls.records(ODD)
    assert (record["run_id"], record["host"], record["outcome"]) == (ODD, ODD, ODD)
    assert calls.describe(ODD)["spec"]["gpu_model"] == ODD
