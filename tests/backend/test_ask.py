"""Ask for a batch size: with the call of Zeus' client, and as a named run."""

from tests.calls import Calls
from tests.databases import dump


def test_the_first_run_gets_the_default_batch_size(calls: Calls) -> None:
    calls.register()
    answer = calls.trial()
    assert (answer["job_id"], answer["batch_size"], answer["trial_number"]) == ("train", 16, 1)
    assert (answer["type"], answer["status"]) == ("Pruning", "Dispatched")
    assert "default" in answer["reason"]
    assert answer["lease_s"] > 0


def test_an_unknown_job_is_400_as_zeus_client_expects(calls: Calls) -> None:
    for answer in (calls.ask("nobody"), calls.ask("nobody", "run")):
        assert answer.status == 400
        assert "'nobody'" in answer.message
        assert "register" in answer.message


def test_trials_are_numbered_from_one_in_every_job(calls: Calls) -> None:
    calls.register()
    calls.register(job_id="train-2")
    assert [calls.trial(job)["trial_number"] for job in ("train", "train-2", "train", "train", "train-2")] == [
        *(1, 1, 2, 3, 2)
    ]


def test_while_the_exploration_runs_others_get_the_default(calls: Calls) -> None:
    calls.register()
    explorer = calls.trial()
    others = [calls.trial() for _ in range(3)]
    assert explorer["type"] == "Pruning"
    assert [(other["batch_size"], other["type"]) for other in others] == [(16, "Concurrent")] * 3


def test_while_the_exploration_runs_others_get_the_cheapest_known(calls: Calls) -> None:
    calls.register()
    calls.converge(calls.trial(), energy=10.0)
    calls.converge(calls.trial(), energy=5.0)
    explorer, other = calls.trial(), calls.trial()
    assert (explorer["batch_size"], explorer["type"]) == (32, "Pruning")
    assert (other["batch_size"], other["type"]) == (8, "Concurrent")


def test_of_equally_cheap_runs_the_first_counts_whichever_ended_first(calls: Calls) -> None:
    calls.register()
    first, second = calls.trial(), calls.trial()
    calls.converge(second)
    calls.converge(first)
    calls.trial()
    assert "by trial 1" in calls.trial()["reason"]


def test_what_a_concurrent_run_finds_never_drives_the_pruning(calls: Calls) -> None:
    calls.register()
    explorer, other = calls.trial(), calls.trial()
    calls.diverge(other)
    assert calls.trial()["type"] == "Concurrent"
    calls.converge(explorer)
    assert calls.trial()["batch_size"] == 8


def test_a_job_goes_through_its_pruning_rounds_to_the_bandit(calls: Calls) -> None:
    calls.register(batch_sizes=[4, 8, 16, 32], num_pruning_rounds=2)
    story = []
    energy = {4: 8.0, 8: 6.0, 16: 7.0, 32: 9.0}
    for _ in range(10):
        trial = calls.trial()
        story.append((trial["batch_size"], trial["type"]))
        if trial["batch_size"] == 32:
            calls.diverge(trial)
        else:
            calls.converge(trial, energy[trial["batch_size"]])
    first_round = [(16, "Pruning"), (8, "Pruning"), (4, "Pruning"), (32, "Pruning")]
    second_round = [(8, "Pruning"), (4, "Pruning"), (16, "Pruning")]
    assert story[:7] == first_round + second_round
    assert {type_ for _, type_ in story[7:]} == {"MAB"}
    assert {size for size, _ in story[7:]} <= {4, 8, 16}


def test_without_pruning_rounds_every_batch_size_is_an_arm(calls: Calls) -> None:
    calls.register(num_pruning_rounds=0, mab_num_explorations=1)
    sizes = set()
    for _ in range(3):
        trial = calls.trial()
        assert trial["type"] == "MAB"
        sizes.add(trial["batch_size"])
        calls.diverge(trial)
    assert sizes == {8, 16, 32}


def test_a_named_run_always_gets_the_same_trial(calls: Calls) -> None:
    calls.register()
    first = calls.trial(run_id="run-1")
    other = calls.trial(run_id="run-2")
    assert calls.trial(run_id="run-1") == first
    assert calls.trial(run_id="run-2") == other
    assert (first["trial_number"], other["trial_number"]) == (1, 2)


def test_a_named_run_that_resumes_gets_its_last_report(calls: Calls) -> None:
    calls.register()
    trial = calls.trial(run_id="run")
    calls.must(calls.report(trial, time=3.5, energy=123456789.123, current_epoch=2, report_number=4))
    again = calls.trial(run_id="run")
    assert (again["time"], again["energy"], again["current_epoch"]) == (3.5, 123456789.123, 2)
    assert (again["report_number"], again["status"]) == (4, "Dispatched")


def test_a_named_run_that_has_ended_gets_the_status_of_its_trial(calls: Calls) -> None:
    calls.register()
    trial = calls.trial(run_id="run")
    calls.converge(trial)
    again = calls.trial(run_id="run")
    assert (again["trial_number"], again["status"]) == (trial["trial_number"], "Succeeded")


def test_the_same_run_name_in_two_jobs_is_two_runs(calls: Calls) -> None:
    calls.register()
    calls.register(job_id="train-2")
    calls.converge(calls.trial("train", "run"))
    assert calls.trial("train-2", "run")["status"] == "Dispatched"


def test_run_names_that_only_look_alike_are_different_runs(calls: Calls) -> None:
    calls.register()
    names = ["run", "Run", "run ", "rün", "r" * 64, "日" * 64]
    assert [calls.trial(run_id=name)["trial_number"] for name in names] == [1, 2, 3, 4, 5, 6]
    assert [calls.trial(run_id=name)["trial_number"] for name in names] == [1, 2, 3, 4, 5, 6]


def test_a_run_name_may_have_64_characters(calls: Calls) -> None:
    calls.register()
    answer = calls.ask(run_id="r" * 65)
    assert answer.status == 422
    assert "run_id" in answer.message


def test_zeus_call_is_another_run_every_time(calls: Calls) -> None:
    calls.register()
    assert [calls.trial()["trial_number"] for _ in range(3)] == [1, 2, 3]


def test_the_batch_size_of_a_failed_trial_is_dispatched_again(calls: Calls) -> None:
    calls.register()
    calls.must(calls.end(calls.trial()))
    again = calls.trial()
    assert (again["batch_size"], again["type"], again["trial_number"]) == (16, "Pruning", 2)


def test_a_refused_ask_leaves_no_trace(calls: Calls, database_url: str) -> None:
    calls.register()
    before = dump(database_url)
    assert calls.ask("nobody").status == 400
    assert calls.ask("nobody", "run").status == 400
    assert dump(database_url) == before
