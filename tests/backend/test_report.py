"""`POST /report`: verdicts, repeated reports and refused reports."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.calls import Calls
from tests.databases import dump

finite = st.floats(allow_nan=False, allow_infinity=False)
quantities = st.floats(min_value=0, max_value=1e30)


@pytest.fixture
def trial(calls: Calls) -> dict[str, Any]:
    """The first trial of a job."""
    calls.register()
    return calls.trial()


def verdict(answer: dict[str, Any]) -> tuple[bool, bool, str]:
    return answer["stop_train"], answer["converged"], answer["reason"]


def test_below_the_target_the_training_continues(calls: Calls, trial: dict[str, Any]) -> None:
    answer = calls.must(calls.report(trial))
    assert verdict(answer) == (False, False, "continue")
    assert answer["cost"] == 10.0
    assert calls.record(trial)["status"] == "Dispatched"


def test_at_the_target_the_training_has_converged(calls: Calls, trial: dict[str, Any]) -> None:
    assert verdict(calls.must(calls.report(trial, metric=1.0))) == (True, True, "converged")
    record = calls.record(trial)
    assert (record["status"], record["converged"]) == ("Succeeded", True)
    assert record["ended_at"] is not None
    assert "target" in record["outcome"]
    assert record["outcome_code"] == "converged"


def test_where_lower_is_better_a_metric_at_or_below_the_target_converges(calls: Calls) -> None:
    calls.register(higher_is_better_metric=False)
    trial = calls.trial()
    assert verdict(calls.must(calls.report(trial, metric=1.1))) == (False, False, "continue")
    assert verdict(calls.must(calls.report(trial, metric=1.0))) == (True, True, "converged")


def test_after_the_last_epoch_the_run_has_failed(calls: Calls, trial: dict[str, Any]) -> None:
    assert verdict(calls.must(calls.report(trial, current_epoch=9))) == (False, False, "continue")
    assert verdict(calls.must(calls.report(trial, current_epoch=10))) == (True, False, "max_epochs")


def test_a_target_reached_in_the_last_epoch_counts(calls: Calls, trial: dict[str, Any]) -> None:
    assert verdict(calls.must(calls.report(trial, current_epoch=10, metric=1.0))) == (True, True, "converged")


def test_a_cost_beyond_the_bound_ends_the_run_even_at_the_target(calls: Calls, trial: dict[str, Any]) -> None:
    calls.converge(trial, energy=10.0)
    second = calls.trial()
    assert verdict(calls.must(calls.report(second, energy=20.0))) == (False, False, "continue")
    assert verdict(calls.must(calls.report(second, energy=20.5, metric=1.0))) == (True, False, "cost_bound")


def test_a_trial_that_did_not_converge_sets_no_bound(calls: Calls, trial: dict[str, Any]) -> None:
    other = calls.trial()
    calls.diverge(trial, energy=1.0)
    assert verdict(calls.must(calls.report(other, energy=1000.0))) == (False, False, "continue")


def test_a_trial_that_ended_without_a_result_sets_no_bound(calls: Calls, trial: dict[str, Any]) -> None:
    other = calls.trial()
    calls.must(calls.report(trial, energy=1.0))
    calls.must(calls.end(trial))
    assert verdict(calls.must(calls.report(other, energy=1000.0))) == (False, False, "continue")


def test_a_metric_that_is_not_a_number_ends_the_run(calls: Calls, trial: dict[str, Any]) -> None:
    assert verdict(calls.must(calls.report(trial, metric=None))) == (True, False, "diverged")


def test_time_counts_as_maximum_power_over_time(calls: Calls) -> None:
    calls.register(eta_knob=0.25, max_power=100.0)
    answer = calls.must(calls.report(calls.trial(), energy=40.0, time=2.0))
    assert answer["cost"] == 0.25 * 40.0 + 0.75 * 100.0 * 2.0


def test_an_energy_with_many_digits_comes_back_as_it_was(calls: Calls) -> None:
    calls.register(num_pruning_rounds=0)
    trial = calls.trial(run_id="run")
    assert calls.must(calls.report(trial, energy=123456789.123))["cost"] == 123456789.123
    assert calls.record(trial)["energy"] == 123456789.123
    assert calls.trial(run_id="run")["energy"] == 123456789.123


def test_a_finished_trial_answers_with_its_outcome_and_stays_as_it_is(
    calls: Calls, trial: dict[str, Any], database_url: str
) -> None:
    calls.converge(trial)
    before = calls.record(trial), len(dump(database_url)["reports"])
    late = calls.must(calls.report(trial, energy=99.0, metric=0.0, current_epoch=5))
    back = calls.must(calls.report(trial, energy=1.0, current_epoch=0))
    assert verdict(late) == verdict(back) == (True, True, "converged")
    assert (calls.record(trial), len(dump(database_url)["reports"])) == before


def test_a_trial_that_its_caller_ended_answers_stop(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.end(trial, reason="out of memory"))
    answer = calls.must(calls.report(trial, metric=1.0))
    assert verdict(answer) == (True, False, "ended")
    assert "out of memory" in answer["message"]


@pytest.mark.parametrize(
    ("field", "lower"), [("time", 0.999), ("energy", 9.999), ("current_epoch", 0)], ids=["time", "energy", "epoch"]
)
def test_a_report_that_goes_back_is_refused(
    calls: Calls, trial: dict[str, Any], field: str, lower: float, database_url: str
) -> None:
    calls.must(calls.report(trial))
    before = dump(database_url)
    answer = calls.report(trial, **{field: lower})
    assert answer.status == 409
    assert field in answer.message
    assert dump(database_url) == before


def test_several_validations_in_one_epoch_are_welcome(calls: Calls, trial: dict[str, Any]) -> None:
    for energy in (0.0, 1.0, 1.0, 2.0):
        assert calls.report(trial, time=energy, energy=energy, current_epoch=0).status == 200
    assert calls.record(trial)["energy"] == 2.0


def test_the_same_report_again_gets_the_stored_verdict(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    first = calls.must(calls.report(trial, report_number=1))
    calls.must(calls.report(trial, report_number=2, energy=11.0))
    stored = dump(database_url)["reports"]
    assert calls.must(calls.report(trial, report_number=1)) == first
    assert dump(database_url)["reports"] == stored
    assert calls.record(trial)["energy"] == 11.0


def test_the_last_report_again_gets_the_stored_verdict_after_the_end(calls: Calls, trial: dict[str, Any]) -> None:
    first = calls.must(calls.report(trial, report_number=1, metric=1.0))
    assert calls.must(calls.report(trial, report_number=1, metric=1.0)) == first


@pytest.mark.parametrize(
    "change",
    [{"energy": 10.5}, {"time": 1.5}, {"metric": 0.5}, {"metric": None}, {"current_epoch": 2}],
    ids=["energy", "time", "metric", "no metric", "epoch"],
)
def test_the_same_number_with_other_content_is_refused(
    calls: Calls, trial: dict[str, Any], change: dict[str, Any], database_url: str
) -> None:
    calls.must(calls.report(trial, report_number=1))
    before = dump(database_url)
    answer = calls.report(trial, report_number=1, **change)
    assert answer.status == 409
    assert "report 1" in answer.message
    assert dump(database_url) == before


def test_a_report_out_of_order_is_refused(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    calls.must(calls.report(trial, report_number=1))
    calls.must(calls.report(trial, report_number=3))
    before = dump(database_url)
    answer = calls.report(trial, report_number=2)
    assert answer.status == 409
    assert "report 2" in answer.message
    assert dump(database_url) == before


def test_reports_without_a_number_are_each_stored(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    for _ in range(3):
        calls.must(calls.report(trial))
    assert len(dump(database_url)["reports"]) == 3
    assert calls.trial(run_id="x")["trial_number"] == 2


def test_reports_with_and_without_a_number_may_alternate(calls: Calls, trial: dict[str, Any]) -> None:
    for number in (None, 2, None, 7, None):
        assert calls.report(trial, report_number=number).status == 200


def test_a_report_after_the_largest_number_is_not_a_fault_of_the_server(calls: Calls, trial: dict[str, Any]) -> None:
    calls.must(calls.report(trial, report_number=2**31 - 1))
    assert calls.report(trial).status < 500


@given(energy=quantities, time=quantities, metric=finite)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_report_of_any_finite_numbers_can_be_repeated(
    calls: Calls, energy: float, time: float, metric: float
) -> None:
    calls.register(num_pruning_rounds=0, beta_knob=None)
    trial = calls.trial()
    content = {"energy": energy, "time": time, "metric": metric, "report_number": 1}
    first = calls.report(trial, **content)
    again = calls.report(trial, **content)
    assert (first.status, again.status) == (200, 200), again.text
    assert again.body == first.body
    assert calls.record(trial)["energy"] == energy


@pytest.mark.parametrize("source", ["nvml", "rapl", "amd", "apple", "estimated"])
def test_the_source_of_the_energy_is_stored(calls: Calls, trial: dict[str, Any], source: str) -> None:
    calls.must(calls.report(trial, energy_source=source))
    calls.must(calls.report(trial))
    assert calls.record(trial)["energy_source"] == source


@pytest.mark.parametrize("source", ["nvml", "rapl", "amd", "apple"])
def test_a_counter_that_has_not_moved_is_no_measurement(
    calls: Calls, trial: dict[str, Any], database_url: str, source: str
) -> None:
    before = dump(database_url)
    answer = calls.report(trial, energy=0.0, time=1.5, metric=1.0, energy_source=source)
    assert answer.status == 422
    assert answer.body["detail"][0]["loc"] == ["energy"]
    assert f"0 J in 1.5 s is no measurement: the energy counter ({source}) has not moved. Check" in answer.message
    assert dump(database_url) == before


@pytest.mark.parametrize(
    "report",
    [
        {"energy_source": "nvml", "time": 1.0},
        {"energy_source": "nvml", "time": 60.0, "metric": None, "out_of_memory": True},
        {"energy_source": "estimated", "time": 60.0},
        {"time": 60.0},
    ],
    ids=["shorter than a counter's updates", "out of memory", "an estimate", "Zeus' client"],
)
def test_0_j_may_be_true_of_other_reports(calls: Calls, trial: dict[str, Any], report: dict[str, Any]) -> None:
    assert calls.report(trial, energy=0.0, **report).status == 200


def test_a_run_of_0_j_becomes_no_bound(calls: Calls, trial: dict[str, Any]) -> None:
    calls.converge(trial, energy=0.0)
    assert verdict(calls.must(calls.report(calls.trial(), energy=1000.0))) == (False, False, "continue")


def test_an_unknown_job_or_trial_is_400(calls: Calls, trial: dict[str, Any], database_url: str) -> None:
    before = dump(database_url)
    for unknown in ({"job_id": "nobody"}, {"trial_number": 2}, {"batch_size": 8}):
        answer = calls.report(trial | unknown)
        assert answer.status == 400
        assert str(next(iter(unknown.values()))) in answer.message
    assert dump(database_url) == before


def test_a_trial_is_judged_by_its_own_report_whatever_stage_the_job_has_reached(calls: Calls) -> None:
    calls.register(batch_sizes=[16], num_pruning_rounds=1, max_epochs=3)
    explorer, other = calls.trial(), calls.trial()
    calls.converge(explorer)
    assert calls.trial()["type"] == "MAB"
    assert verdict(calls.must(calls.report(other, current_epoch=2))) == (False, False, "continue")
    assert verdict(calls.must(calls.report(other, current_epoch=3))) == (True, False, "max_epochs")
    assert calls.record(other)["type"] == "Concurrent"


def test_a_job_keeps_to_one_source_of_energy(calls: Calls) -> None:
    calls.register()
    calls.converge(calls.must(calls.ask()) | {"energy_source": "nvml"})
    measured = calls.trial()
    calls.must(calls.report(measured, energy_source="nvml"))
    answer = calls.report(measured, energy=11.0, energy_source="estimated")
    assert answer.status == 409
    assert "nvml" in answer.message
    assert "estimated" in answer.message
    assert calls.record(measured)["energy"] == 10.0
    assert calls.report(calls.trial(), energy_source="rapl").status == 409
    unnamed = calls.trial()
    assert calls.report(unnamed, report_number=1).status == 200  # Zeus' client sends no source
    assert calls.report(unnamed, report_number=2, energy_source="rapl").status == 409
    assert calls.report(unnamed, report_number=2, energy_source="nvml").status == 200
