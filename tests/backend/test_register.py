"""`POST /jobs`: the stored spec, equality of specs, and valid ids."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import specs
from tests.calls import Calls
from tests.databases import dump

quantities = st.floats(min_value=1e-30, max_value=1e30)


def test_a_new_job_is_created(calls: Calls) -> None:
    answer = calls.register()
    assert answer.status == 201
    assert answer.body == specs.job() | {
        "higher_is_better_metric": True,
        "calibration_runs": 3,
        "target_tolerance": 0.0,
        "window_size": 0,
        "mab_prior_mean": 0.0,
        "mab_prior_precision": 0.0,
        "mab_num_explorations": 2,
        "policy": "zeus",
        "warm_start_from": None,
    }


def test_absent_fields_get_the_defaults_of_the_protocol(calls: Calls) -> None:
    required = ("job_id", "job_id_prefix", "batch_sizes", "default_batch_size", "max_power", "number_of_gpus")
    body = {name: specs.job()[name] for name in (*required, "gpu_model")}
    assert calls.must(calls("POST", "/jobs", body)) == body | {
        "eta_knob": 0.5,
        "beta_knob": 2.0,
        "target_metric": 0.5,
        "higher_is_better_metric": True,
        "calibration_runs": 3,
        "target_tolerance": 0.0,
        "max_epochs": 100,
        "num_pruning_rounds": 2,
        "window_size": 0,
        "mab_prior_mean": 0.0,
        "mab_prior_precision": 0.0,
        "mab_num_explorations": 2,
        "mab_seed": None,
        "policy": "zeus",
        "warm_start_from": None,
    }


def test_the_same_spec_again_is_welcome(calls: Calls) -> None:
    first = calls.register()
    again = calls.register()
    assert (first.status, again.status) == (201, 200)
    assert again.body == first.body


def test_registering_again_changes_nothing(calls: Calls, database_url: str) -> None:
    calls.register()
    before = dump(database_url)
    calls.register()
    calls.register(max_epochs=7)
    assert dump(database_url) == before


def test_another_spec_under_the_same_id_is_refused_with_the_fields_that_differ(calls: Calls) -> None:
    calls.register()
    answer = calls.register(max_epochs=11, eta_knob=0.25)
    assert answer.status == 409
    assert "differs in eta_knob, max_epochs." in answer.message


@pytest.mark.parametrize(
    "change",
    [
        {"batch_sizes": [8, 16]},
        {"default_batch_size": 8},
        {"eta_knob": 0.5},
        {"beta_knob": None},
        {"target_metric": 2.0},
        {"higher_is_better_metric": False},
        {"num_pruning_rounds": 1},
        {"window_size": 3},
        {"mab_prior_mean": -1.0},
        {"mab_prior_precision": 1.0},
        {"mab_num_explorations": 3},
        {"mab_seed": None},
        {"max_power": 101.0},
        {"number_of_gpus": 2},
        {"gpu_model": "V100"},
        {"job_id_prefix": "tra"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_difference_in_any_field_is_refused(calls: Calls, change: dict[str, Any]) -> None:
    calls.register()
    answer = calls.register(**change)
    assert answer.status == 409
    assert f"differs in {next(iter(change))}." in answer.message


def test_batch_sizes_are_sorted_and_their_order_makes_no_difference(calls: Calls) -> None:
    assert calls.must(calls.register(batch_sizes=[32, 8, 16]))["batch_sizes"] == [8, 16, 32]
    assert calls.register(batch_sizes=[16, 32, 8]).status == 200


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-7, 1e-30, 1 / 3, 123456789.123, 1e30, 1e22])
def test_a_number_with_many_digits_is_the_same_when_it_comes_again(calls: Calls, value: float) -> None:
    changes = {"target_metric": value, "max_power": value, "beta_knob": value}
    assert calls.register(**changes).status == 201
    again = calls.register(**changes)
    assert again.status == 200
    assert {name: again.body[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("1e0", "1"), ("0.5", "5e-1"), ("0.30000000000000004", "3.0000000000000004e-1")]
)
def test_the_way_a_float_is_written_makes_no_difference(calls: Calls, one: str, other: str) -> None:
    def send(written: str) -> int:
        body = '{"eta_knob": %s, "job_id": "a", "job_id_prefix": "a", "batch_sizes": [8], "default_batch_size": 8,'
        rest = ' "max_power": 1, "number_of_gpus": 1, "gpu_model": "x"}'
        return calls.send("POST", "/jobs", body % written + rest).status

    assert (send(one), send(other)) == (201, 200)


@given(power=quantities, target=st.floats(allow_nan=False, allow_infinity=False), eta=st.floats(0, 1))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_finite_number_is_stored_exactly(calls: Calls, power: float, target: float, eta: float) -> None:
    changes = {"job_id": None, "max_power": power, "target_metric": target, "eta_knob": eta}
    stored = calls.must(calls.register(**changes))
    again = calls("POST", "/jobs", stored)
    assert (again.status, again.body) == (200, stored)
    assert (stored["max_power"], stored["target_metric"], stored["eta_knob"]) == (power, target, eta)


def test_a_job_without_an_id_gets_one_made_from_its_prefix(calls: Calls) -> None:
    first = calls.must(calls.register(job_id=None, job_id_prefix="resnet"))["job_id"]
    second = calls.must(calls.register(job_id=None, job_id_prefix="resnet"))["job_id"]
    assert first != second
    for job_id in (first, second):
        prefix, _, digits = job_id.rpartition("-")
        assert prefix == "resnet"
        assert len(digits) == 8
        assert int(digits, 16) >= 0
        assert calls.trial(job_id)["job_id"] == job_id


def test_the_longest_prefix_still_leaves_room_for_a_made_id(calls: Calls) -> None:
    assert len(calls.must(calls.register(job_id=None, job_id_prefix="日" * 246))["job_id"]) == 255
    answer = calls.register(job_id=None, job_id_prefix="日" * 247)
    assert answer.status == 422
    assert "job_id_prefix" in answer.message


@pytest.mark.parametrize(
    "job_id",
    [
        *("a" * 255, "日" * 255, "😀" * 255, "ش" * 255, "é" * 255, "e\u0301" * 127),
        *(" ", " a ", "a b", "a?b=c&d", "100%", "a%2Fb", "../x", "<b>", "'; DROP TABLE jobs; --", "\\", '"', "ß"),
    ],
    ids=lambda job_id: ascii(job_id)[:20],
)
def test_an_id_may_be_long_and_of_any_script(calls: Calls, job_id: str) -> None:
    assert calls.register(job_id=job_id, job_id_prefix=job_id[0]).status == 201
    assert calls.register(job_id=job_id, job_id_prefix=job_id[0]).status == 200
    trial = calls.trial(job_id)
    assert trial["job_id"] == job_id
    calls.converge(trial)
    assert calls.describe(job_id)["spec"]["job_id"] == job_id
    assert len(calls.records(job_id)) == 1
    assert calls.delete(job_id).status == 200


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("job", "Job"),
        ("job", "job "),
        ("job", "jöb"),
        ("straße", "strasse"),
        ("é", "e\u0301"),
        ("😀", "😁"),
        ("i", "ı"),
    ],
    ids=ascii,
)
def test_ids_that_only_look_alike_are_different_jobs(calls: Calls, one: str, other: str) -> None:
    assert calls.register(job_id=one, job_id_prefix=one).status == 201
    assert calls.register(job_id=other, job_id_prefix=other[0]).status == 201
    assert calls.trial(one)["trial_number"] == calls.trial(other)["trial_number"] == 1
    assert calls.delete(one).status == 200
    assert calls.ask(other).status == 200


@pytest.mark.parametrize("job_id", ["team/model", "a//b", "a/", "a/trials/b", "/a", "..", "a/../b"])
def test_an_id_may_look_like_a_path(calls: Calls, job_id: str) -> None:
    calls.register(job_id=job_id, job_id_prefix=job_id[0])
    calls.register(job_id="a", job_id_prefix="a")
    calls.trial(job_id)
    assert calls.describe(job_id)["spec"]["job_id"] == job_id
    assert len(calls.records(job_id)) == 1
    assert calls.reset(job_id).status == 200


@pytest.mark.parametrize("job_id", ["a/trials", "a/reset", "/trials", "batch_size"])
def test_an_id_that_means_something_else_in_an_address_is_refused(calls: Calls, job_id: str) -> None:
    answer = calls.register(job_id=job_id, job_id_prefix=job_id[0])
    assert answer.status == 422
    assert "job_id" in answer.message


def test_a_gpu_name_may_have_200_characters(calls: Calls) -> None:
    name = "NVIDIA " + "H" * 193
    assert calls.must(calls.register(gpu_model=name))["gpu_model"] == name
    assert calls.describe()["spec"]["gpu_model"] == name


def test_a_job_may_have_1024_batch_sizes_up_to_the_largest_integer(calls: Calls) -> None:
    sizes = [*range(1, 1024), 2**31 - 1]
    assert calls.register(batch_sizes=sizes, default_batch_size=2**31 - 1).status == 201
    assert calls.trial()["batch_size"] == 2**31 - 1


def test_fields_that_the_server_does_not_know_are_ignored(calls: Calls) -> None:
    answer = calls.register(invented_later={"a": [1]})
    assert answer.status == 201
    assert "invented_later" not in answer.body
    assert calls.register().status == 200
