"""The simulator and its command: where workloads come from, what a study finds on them, and what is shown of it."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from backend.cli import main
from backend.core.cost import cost
from backend.core.simulate import EndlessRetry, SizeRecord, Workload
from backend.simulator import recorded, report, synthetic, traces
from backend.simulator.cli import HORIZONS
from backend.simulator.study import (
    CONTENDERS,
    Comparison,
    Drift,
    NothingToCompare,
    Outcome,
    Scenario,
    compare,
    compare_all,
    ratio,
)
from tests.specs import core_spec

TRACES = Path(__file__).parents[2] / "benchmarks" / "traces"
CIFAR100, IMAGENET = traces.JOBS["cifar100"], traces.JOBS["imagenet"]
COLUMNS = (
    "job_id,default_batch_size,eta_knob,beta_knob,max_power,max_epochs,"
    "batch_size,status,converged,time,energy,current_epoch"
)


def workload(epochs: dict[int, tuple[float, ...]], **changes: object) -> Workload:
    """A job by its batch sizes' epochs to the target; an epoch costs one joule."""
    sizes = tuple(epochs)
    spec = core_spec(**{"batch_sizes": sizes, "default_batch_size": sizes[0], "max_epochs": 100} | changes)
    return Workload("example", spec, {size: SizeRecord(1.0, 1.0, known) for size, known in epochs.items()})


def assert_same(one: Comparison, other: Comparison) -> None:
    """Two comparisons found the same of everyone."""
    everyone, others = ({**report.everyone(each), "clairvoyant": each.clairvoyant} for each in (one, other))
    assert everyone.keys() == others.keys()
    for name, outcome in everyone.items():
        for figures in ("cost_j", "energy_j", "time_s"):
            np.testing.assert_array_equal(getattr(outcome, figures), getattr(others[name], figures))
        assert (outcome.failed, outcome.stuck, outcome.endless) == (
            *(others[name].failed, others[name].stuck, others[name].endless),
        )


# measured trainings


def test_cifar100_on_a_v100_is_as_its_lines_say() -> None:
    found = traces.workload(traces.read(TRACES, ["v100"]), "v100", CIFAR100)
    assert found.name == "cifar100/v100"
    assert found.spec.batch_sizes == (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    assert found.spec.default_batch_size == 1024
    assert (found.spec.max_power, found.spec.max_epochs, found.spec.target_metric) == (250.0, 100, 0.6)
    assert found.spec.higher_is_better_metric
    assert found.sizes[1024].epoch_time_s == 7.613333333333333  # the line of 250 W
    assert found.sizes[1024].power_w == 187.68996594563717
    assert sorted(found.sizes[1024].epochs) == [70, 71, 71, 74, 77, 77, 80, 80, 90, 97]
    assert sorted(found.sizes[4096].epochs) == [421, 456, 498, 566, math.inf]  # one line holds nan


def test_imagenet_on_a_p100_has_the_two_batch_sizes_that_fit_it_and_were_trained() -> None:
    data = traces.read(TRACES, ["p100"])
    found = traces.workload(data, "p100", IMAGENET)
    assert found.spec.batch_sizes == (64, 128)
    assert found.spec.default_batch_size == 128  # the job's own, 256, does not fit
    assert found.sizes == {
        64: SizeRecord(6482.97, 164.16828676362687, (math.inf,) * 4),
        128: SizeRecord(6277.98, 165.4681180501475, (32, 34, 33, 31, 31)),
    }
    assert traces.power_limits(data, "p100", IMAGENET) == 6


def test_a_word_error_rate_is_better_when_it_is_lower() -> None:
    found = traces.workload(traces.read(TRACES, ["v100"]), "v100", traces.JOBS["librispeech"])
    assert not found.spec.higher_is_better_metric


@pytest.mark.parametrize("gpu", traces.GPUS)
@pytest.mark.parametrize("job", traces.JOBS.values(), ids=lambda job: job.dataset)
def test_the_best_power_limit_is_never_dearer_than_the_highest(gpu: str, job: traces.TracedJob) -> None:
    data = traces.read(TRACES, [gpu])
    for eta in (0.0, 0.5, 1.0):
        highest, best = (
            traces.workload(data, gpu, job, eta=eta, best_power_limit=best_power_limit)
            for best_power_limit in (False, True)
        )
        assert highest.spec == best.spec
        for size in highest.spec.batch_sizes:
            per_epoch = [
                cost(
                    one.sizes[size].epoch_time_s * one.sizes[size].power_w,
                    one.sizes[size].epoch_time_s,
                    eta=eta,
                    max_power_w=one.spec.max_power,
                )
                for one in (best, highest)
            ]
            assert per_epoch[0] <= per_epoch[1]


@pytest.fixture
def two_lines(tmp_path: Path) -> Path:
    """A folder of traces with one batch size and three runs, two of which never reached the target."""
    (tmp_path / "summary_power_v100.csv").write_text(
        "dataset,network,batch_size,optimizer,power_limit,time_per_epoch,average_power\n"
        "cifar100,shufflenetv2,64,adadelta,100,9,80\n"
        "cifar100,shufflenetv2,64,adadelta,250,5,200\n"
    )
    (tmp_path / "summary_train.csv").write_text(
        "dataset,network,batch_size,optimizer,learning_rate,run,target_metric,target_epoch\n"
        "cifar100,shufflenetv2,64,adadelta,1e-1,1,0.6,7\n"
        "cifar100,shufflenetv2,64,adadelta,1e-1,2,0.6,\n"
        "cifar100,shufflenetv2,64,adadelta,1e-1,3,0.6,nan\n"
        "cifar100,shufflenetv2,64,adadelta,1e-1,1,0.7,8\n"
        "cifar100,shufflenetv2,32,adadelta,1e-1,1,0.6,9\n"
    )
    return tmp_path


def test_a_run_without_a_target_epoch_never_converges(two_lines: Path) -> None:
    found = traces.workload(traces.read(two_lines, ["v100"]), "v100", CIFAR100)
    assert found.sizes == {64: SizeRecord(5.0, 200.0, (7.0, math.inf, math.inf))}  # of 32 nothing says what it costs
    assert found.spec.default_batch_size == 64


def test_another_target_of_those_measured_can_be_asked_for(two_lines: Path) -> None:
    data = traces.read(two_lines, ["v100"])
    assert data.targets(CIFAR100) == [0.6, 0.7]
    assert traces.workload(data, "v100", replace(CIFAR100, target=0.7)).sizes[64].epochs == (8.0,)
    with pytest.raises(traces.TracesUnusable, match=r"cifar100 to 0\.65 .* v100"):
        traces.workload(data, "v100", replace(CIFAR100, target=0.65))


@pytest.mark.parametrize("missing", ["summary_train.csv", "summary_power_v100.csv"])
def test_a_file_of_traces_that_is_missing_is_named(two_lines: Path, missing: str) -> None:
    (two_lines / missing).unlink()
    with pytest.raises(traces.TracesUnusable, match=missing):
        traces.read(two_lines, ["v100"])


@pytest.mark.parametrize("file", ["summary_train.csv", "summary_power_v100.csv"])
@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00\x9f\n\xff\n"])
def test_a_file_of_traces_that_is_something_else_is_named(two_lines: Path, file: str, content: bytes) -> None:
    (two_lines / file).write_bytes(content)
    done = command("--traces", str(two_lines), "--workload", "cifar100")
    assert done.exit_code == 1
    assert file in done.output


# random trainings


def test_a_random_job_is_the_same_each_time_and_another_number_is_another_job() -> None:
    assert synthetic.workload(3) == synthetic.workload(3)
    assert synthetic.workload(3).sizes != synthetic.workload(4).sizes


@pytest.mark.parametrize("number", range(30))
def test_a_random_job_is_made_of_positive_finite_figures(number: int) -> None:
    found = synthetic.workload(number)
    assert found.spec.default_batch_size in found.spec.batch_sizes
    assert tuple(found.sizes) == found.spec.batch_sizes == tuple(sorted(found.spec.batch_sizes))
    for record in found.sizes.values():
        assert 0 < record.epoch_time_s < math.inf
        assert 0 < record.power_w <= found.spec.max_power
        assert len(record.epochs) == synthetic.RUNS
        assert all(epochs >= 1 and epochs == int(epochs) for epochs in record.epochs if math.isfinite(epochs))
    assert any(epochs <= found.spec.max_epochs for record in found.sizes.values() for epochs in record.epochs)


# recorded trials


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A job's trials, as they are exported."""
    file = tmp_path / "trials.csv"
    lines = [
        COLUMNS,
        "nightly,32,0.25,1.5,300,40,16,Succeeded,True,100,5000,10",
        "nightly,32,0.25,1.5,300,40,32,Succeeded,true,60,6000,12",
        "nightly,32,0.25,1.5,300,40,32,Succeeded,False,40,5000,8",
        "nightly,32,0.25,1.5,300,40,64,Failed,,10,900,2",
        "nightly,32,0.25,1.5,300,40,64,Dispatched,,0,0,0",
    ]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_jobs_own_trials_make_a_workload(export: Path) -> None:
    found = recorded.workload(export)
    assert found.name == "nightly"
    assert found.sizes == {
        16: SizeRecord(10.0, 50.0, (10.0,)),
        32: SizeRecord(5.0, 110.0, (12.0, math.inf)),  # 100 s and 11 kJ in 20 epochs
    }
    assert found.spec.batch_sizes == (16, 32)  # nothing ended with 64
    assert (found.spec.default_batch_size, found.spec.max_epochs, found.spec.max_power) == (32, 40, 300.0)
    assert (found.spec.eta_knob, found.spec.beta_knob) == (0.25, 1.5)
    assert recorded.workload(export, eta=1.0).spec.eta_knob == 1.0


def test_a_default_that_was_never_tried_gives_way_to_the_smallest_that_was(export: Path) -> None:
    export.write_text(export.read_text().replace("nightly,32,", "nightly,64,"))
    assert recorded.workload(export).spec.default_batch_size == 16


def test_trials_without_an_early_stop_knob_have_no_bound(export: Path) -> None:
    export.write_text(export.read_text().replace(",1.5,", ",,"))
    assert recorded.workload(export).spec.beta_knob is None


FOREIGN = {
    "not a table": b"\x89PNG\r\n\x1a\n\xff\xfe",
    "another table": b"a,b\n1,2\n",
    "a number that is none": f"{COLUMNS}\nj,8,0.5,2,250,10,8,Succeeded,True,soon,5,5\n".encode(),
    "a batch size that is none": f"{COLUMNS}\nj,8,0.5,2,250,10,big,Succeeded,True,5,5,5\n".encode(),
    "epochs that are missing": f"{COLUMNS}\nj,8,0.5,2,250,10,8,Succeeded,True,5,5,\n".encode(),
    "a line that is cut off": f"{COLUMNS}\nj,8,0.5,2,250,10,8,Succeeded\n".encode(),
    "nothing ended": f"{COLUMNS}\nj,8,0.5,2,250,10,8,Dispatched,,0,0,0\n".encode(),
    "empty": b"",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_that_holds_no_trials_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.csv"
    file.write_bytes(content)
    with pytest.raises(traces.TracesUnusable, match=r"other\.csv"):
        recorded.workload(file)


@pytest.mark.parametrize("column", COLUMNS.split(","))
def test_a_column_that_is_missing_from_the_trials_is_named(export: Path, column: str) -> None:
    head, *lines = export.read_text().splitlines()
    renamed = ["renamed" if name == column else name for name in head.split(",")]
    export.write_text("\n".join([",".join(renamed), *lines]))
    with pytest.raises(traces.TracesUnusable, match=rf"trials\.csv.*{column}"):
        recorded.workload(export)


def test_trials_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(traces.TracesUnusable, match=r"absent\.csv"):
        recorded.workload(tmp_path / "absent.csv")
    with pytest.raises(traces.TracesUnusable, match=tmp_path.name):
        recorded.workload(tmp_path)


# studies


def test_nobody_is_cheaper_than_the_clairvoyant_where_runs_do_not_scatter() -> None:
    example = workload({8: (40.0,), 16: (10.0,), 32: (20.0,)})
    found = compare(Scenario(example, 12), CONTENDERS, seeds=2)
    assert ratio(found.clairvoyant, found.clairvoyant, 12) == 1
    assert ratio(found.floor, found.clairvoyant, 12) == pytest.approx((40 + 11 * 10) / 120)
    assert found.default is not None
    assert ratio(found.default, found.clairvoyant, 12) == pytest.approx(4)
    assert ratio(found.floor, found.default, 12) <= 1
    for name in CONTENDERS:
        assert ratio(found.contenders[name], found.clairvoyant, 12) > 1


def test_the_clairvoyant_sees_the_drift_coming() -> None:
    example = workload({8: (20.0,), 16: (30.0,)}, max_epochs=50)
    example = replace(example, sizes=example.sizes | {16: SizeRecord(0.5, 1.0, (30.0,))})  # 15 J, until it fails
    found = compare(Scenario(example, 4, drift=Drift(2, 2.0)), [], seeds=1)
    np.testing.assert_allclose(found.clairvoyant.cost_j, [[15, 15, 40, 40]])
    np.testing.assert_allclose(found.floor.cost_j, [[20, 15, 40, 40]])


def test_what_failed_launches_cost_is_part_of_their_recurrence() -> None:
    found = compare(Scenario(workload({8: (math.inf,), 16: (5.0,)}, max_epochs=10), 3), ["grid"], seeds=2)
    np.testing.assert_allclose(found.contenders["grid"].cost_j, [[15, 5, 5]] * 2)
    assert found.contenders["grid"].failed == 2
    assert found.default is None  # 8 never converges
    np.testing.assert_allclose(found.floor.cost_j, [[5, 5, 5]] * 2)


def test_a_contender_that_gets_stuck_is_counted_and_its_user_goes_on_with_the_default() -> None:
    example = workload({8: (10.0,)}, beta_knob=2.0)
    found = compare(Scenario(example, 5, drift=Drift(1, 3.0)), ["zeus", "gp-ucb"], seeds=3)
    zeus = found.contenders["zeus"]
    assert (zeus.stuck, zeus.endless, zeus.failed) == (3, 0, 3)
    np.testing.assert_allclose(zeus.cost_j, [[10, 21 + 30, 30, 30, 30]] * 3)
    assert (found.contenders["gp-ucb"].stuck, found.contenders["gp-ucb"].endless) == (0, 0)


def test_a_contender_whose_recurrence_has_no_end_is_counted_and_its_user_goes_on_with_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.core.simulate.MOST_LAUNCHES", 10)
    example = workload({8: (10.0,)}, beta_knob=2.0)
    zeus = compare(Scenario(example, 5, drift=Drift(2, 3.0)), ["zeus"], seeds=2).contenders["zeus"]
    assert (zeus.stuck, zeus.endless, zeus.failed) == (0, 2, 20)
    np.testing.assert_allclose(zeus.cost_j, [[10, 10, 10 * 21 + 30, 30, 30]] * 2)


def test_the_user_of_a_stuck_contender_leaves_a_default_that_does_not_converge_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.core.simulate.MOST_LAUNCHES", 10)
    example = workload({8: (40.0,), 16: (20.0,)}, beta_knob=2.0)
    try:
        found = compare(Scenario(example, 12, drift=Drift(8, 3.0)), ["zeus"], seeds=1)
    except EndlessRetry as error:
        pytest.fail(f"the study ends with {error}")
    assert found.default is None  # from the ninth recurrence on it needs 120 epochs of 100
    assert found.contenders["zeus"].stuck + found.contenders["zeus"].endless == 1
    np.testing.assert_allclose(found.contenders["zeus"].cost_j[:, -3:], 60)


def test_the_user_of_a_baseline_is_stopped_by_no_bound() -> None:
    example = workload({8: (10.0,), 16: (90.0,)}, beta_knob=1.0)
    found = compare(Scenario(example, 20), ["random", "grid"], seeds=1)
    assert all(outcome.failed == 0 for outcome in found.contenders.values())
    assert set(found.contenders["random"].cost_j.ravel()) == {10.0, 90.0}


def test_a_job_that_never_converges_is_nothing_to_compare_on() -> None:
    with pytest.raises(NothingToCompare, match="example"):
        compare(Scenario(workload({8: (math.inf,)}), 3), ["zeus"], seeds=1)
    with pytest.raises(NothingToCompare, match="example"):
        compare(Scenario(workload({8: (60.0,)}), 3, drift=Drift(1, 2.0)), ["zeus"], seeds=1)


def test_a_drift_after_the_last_recurrence_changes_nothing() -> None:
    example = workload({8: (60.0,), 16: (30.0,)})
    assert_same(
        compare(Scenario(example, 3, drift=Drift(3, 9.0)), ["zeus"], seeds=1),
        compare(Scenario(example, 3), ["zeus"], seeds=1),
    )


def test_a_study_finds_the_same_in_one_process_and_in_two() -> None:
    scenarios = [Scenario(synthetic.workload(number), 4, concurrency=2) for number in (1, 2)]
    alone, together = (list(compare_all(scenarios, CONTENDERS, seeds=2, jobs=jobs)) for jobs in (1, 2))
    assert [one.scenario for one in together] == scenarios
    for one, other in zip(alone, together, strict=True):
        assert_same(one, other)


def test_more_seeds_leave_the_first_ones_as_they_are() -> None:
    scenario = Scenario(synthetic.workload(1), 4)
    few, many = (compare(scenario, CONTENDERS, seeds) for seeds in (1, 3))
    for name in CONTENDERS:
        np.testing.assert_array_equal(few.contenders[name].cost_j, many.contenders[name].cost_j[:1])


def test_only_horizons_that_were_played_are_reported() -> None:
    outcome = Outcome(*(np.ones((1, 30)) for _ in range(3)))
    found = Comparison(Scenario(workload({8: (1.0,)}), 30), outcome, outcome, outcome)
    assert report.horizons(found, (20, 50, 100)) == [20, 30]
    assert report.horizons(found, (20, 30)) == [20, 30]
    found.scenario = Scenario(found.scenario.workload, 5)
    assert report.horizons(found, (20, 50, 100)) == [5]


# the command


def command(*options: str) -> Result:
    """Run `python -m backend simulate` in this process; an exception that it does not handle is raised."""
    return CliRunner().invoke(
        main, ["simulate", "--jobs", "1", "--seeds", "2", "--recurrences", "5", *options], catch_exceptions=False
    )


def on_imagenet(*options: str) -> Result:
    """The smallest measured training."""
    return command("--traces", str(TRACES), "--workload", "imagenet", "--gpu", "p100", *options)


def test_the_command_prints_a_table_of_the_policies() -> None:
    done = on_imagenet()
    assert done.exit_code == 0, done.output
    assert "1 workloads, 2 seeds, 5 recurrences" in done.output
    for name in ("gp-ucb", "zeus", "default", "floor"):
        assert f" {name} " in done.output
    assert " grid " not in done.output


def test_the_command_finds_the_measured_trainings_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TRACES.parents[1])
    assert command("--workload", "imagenet", "--gpu", "p100", "--policy", "grid").exit_code == 0


def test_the_command_writes_the_figures_of_its_table_as_json(tmp_path: Path) -> None:
    assert on_imagenet("--json", str(tmp_path / "figures.json")).exit_code == 0
    example = traces.workload(traces.read(TRACES, ["p100"]), "p100", IMAGENET)
    expected = report.to_json([compare(Scenario(example, 5), ("gp-ucb", "zeus"), seeds=2)], HORIZONS)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures == expected
    assert figures[0]["contenders"].keys() == {"gp-ucb", "zeus", "default", "floor"}
    mean = figures[0]["contenders"]["zeus"]["cost_against_clairvoyant"]["5"]
    assert f" {mean:.3f} " in on_imagenet("--policy", "zeus").output


def test_the_command_draws_a_page_that_needs_no_other_host(tmp_path: Path) -> None:
    done = on_imagenet("--policy", "zeus", "--plot", str(tmp_path / "regret.html"))
    assert done.exit_code == 0, done.output
    page = (tmp_path / "regret.html").read_text()
    assert "imagenet" in page
    for loads in ('src="http', "src='http", 'src="//', "<link"):
        assert loads not in page


def test_the_command_plays_random_jobs() -> None:
    done = command("--synthetic", "1", "--policy", "zeus,random")
    assert done.exit_code == 0, done.output
    assert " random " in done.output


def test_the_command_plays_a_jobs_own_trials(export: Path) -> None:
    done = command("--trials", str(export), "--policy", "grid")
    assert done.exit_code == 0, done.output
    assert " grid " in done.output


def test_the_command_plays_a_job_whose_default_does_not_survive_a_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.core.simulate.MOST_LAUNCHES", 30)
    done = command("--traces", str(TRACES), "--workload", "cifar100", "--policy", "zeus", "--drift", "3:2")
    assert done.exit_code == 0, done.output


def test_drift_makes_recurrences_dearer(tmp_path: Path) -> None:
    for name, options in (("steady", ()), ("drift", ("--drift", "3:2"))):
        assert on_imagenet("--policy", "grid", "--json", str(tmp_path / name), *options).exit_code == 0
    steady, drift = (json.loads((tmp_path / name).read_text())[0] for name in ("steady", "drift"))
    assert drift["clairvoyant_mean_cost_j"] == pytest.approx(steady["clairvoyant_mean_cost_j"] * 7 / 5, rel=0.02)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--policy", "thompson", CONTENDERS),
        ("--policy", "zeus,,grid", CONTENDERS),
        ("--gpu", "h100", traces.GPUS),
        ("--workload", "mnist", tuple(traces.JOBS)),
        ("--power-limit", "least", ("max", "best")),
    ],
)
def test_a_name_that_is_not_known_is_refused_with_those_that_are(
    option: str, value: str, allowed: tuple[str, ...]
) -> None:
    done = command(option, value)
    assert done.exit_code == 2
    assert option in done.output
    for name in allowed:
        assert name in done.output


@pytest.mark.parametrize("value", ["3", "3:", ":2", "3:2:1", "three:2", "3:two", "3:nan", "3:inf", "3:0", "3:-2"])
def test_a_drift_that_is_none_is_refused_with_an_example(value: str) -> None:
    done = on_imagenet(f"--drift={value}")
    assert done.exit_code == 2
    assert "60:2.5" in done.output


def test_the_command_says_in_one_line_what_it_cannot_play_on(tmp_path: Path) -> None:
    never = tmp_path / "never.csv"
    never.write_text(f"{COLUMNS}\nnever,8,0.5,2,250,10,8,Succeeded,False,5,5,5\n")
    for options, said in (
        (("--traces", str(tmp_path)), "summary_train.csv"),
        (("--trials", str(tmp_path / "absent.csv")), "absent.csv"),
        (("--trials", str(never)), "no batch size of never converges"),
        (("--traces", str(TRACES), "--workload", "cifar100", "--target", "0.99"), "cifar100 to 0.99"),
    ):
        done = command(*options)
        assert done.exit_code == 1
        assert said in done.output
