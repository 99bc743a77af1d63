"""The simulator and its command: workloads from all sources, studies on them, and their output."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from backend.cli import main
from backend.core.cost import cost
from backend.core.simulate import EndlessRetry, SizeRecord, Workload
from backend.simulator import recorded, report, synthetic, tables, traces
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
JOB = {
    "job_id": "nightly",
    "batch_sizes": "16 32 64",
    "default_batch_size": 32,
    "eta_knob": 0.25,
    "beta_knob": 1.5,
    "max_power": 300.0,
    "target_metric": 0.9,
    "higher_is_better_metric": True,
    "max_epochs": 40,
    "num_pruning_rounds": 3,
    "window_size": 7,
    "mab_prior_mean": -5.0,
    "mab_prior_precision": 0.5,
    "mab_num_explorations": 4,
    "warm_start_from": "",
}
ENDED = {"exploration": 0, "status": "Succeeded", "time": 10.0, "energy": 500.0}
COLUMNS = (*JOB, "exploration", "batch_size", "status", "outcome_code", "time", "energy", "current_epoch")


def workload(epochs: dict[int, tuple[float, ...]], **changes: object) -> Workload:
    """Return a job from its batch sizes' epochs to the target. An epoch costs 1 J."""
    sizes = tuple(epochs)
    spec = core_spec(**{"batch_sizes": sizes, "default_batch_size": sizes[0], "max_epochs": 100} | changes)
    return Workload("example", spec, {size: SizeRecord(1.0, 1.0, of_size) for size, of_size in epochs.items()})


def assert_same(left: Comparison, right: Comparison) -> None:
    """Check that two comparisons have the same outcomes."""
    left_outcomes, right_outcomes = (
        {**report.all_outcomes(comparison), "clairvoyant": comparison.clairvoyant} for comparison in (left, right)
    )
    assert left_outcomes.keys() == right_outcomes.keys()
    for name, outcome in left_outcomes.items():
        for figures in ("cost_j", "energy_j", "time_s"):
            np.testing.assert_array_equal(getattr(outcome, figures), getattr(right_outcomes[name], figures))
        assert (outcome.failed, outcome.stuck, outcome.endless) == (
            *(right_outcomes[name].failed, right_outcomes[name].stuck, right_outcomes[name].endless),
        )


# measured trainings


def test_cifar100_on_a_v100_is_as_its_lines_say() -> None:
    measured = traces.workload(traces.read(TRACES, ["v100"]), "v100", CIFAR100)
    assert measured.name == "cifar100/v100"
    assert measured.spec.batch_sizes == (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
    assert measured.spec.default_batch_size == 1024
    assert (measured.spec.max_power, measured.spec.max_epochs, measured.spec.target_metric) == (250.0, 100, 0.6)
    assert measured.spec.higher_is_better_metric
    assert measured.sizes[1024].epoch_time_s == 7.613333333333333  # from the line of 250 W
    assert measured.sizes[1024].power_w == 187.68996594563717
    assert sorted(measured.sizes[1024].epochs) == [70, 71, 71, 74, 77, 77, 80, 80, 90, 97]
    assert sorted(measured.sizes[4096].epochs) == [421, 456, 498, 566, math.inf]  # one line has nan


def test_imagenet_on_a_p100_has_the_two_batch_sizes_that_fit_and_were_trained() -> None:
    data = traces.read(TRACES, ["p100"])
    measured = traces.workload(data, "p100", IMAGENET)
    assert measured.spec.batch_sizes == (64, 128)
    assert measured.spec.default_batch_size == 128  # the job's own default, 256, does not fit
    assert measured.sizes == {
        64: SizeRecord(6482.97, 164.16828676362687, (math.inf,) * 4),
        128: SizeRecord(6277.98, 165.4681180501475, (32, 34, 33, 31, 31)),
    }
    assert traces.power_limits(data, "p100", IMAGENET) == 6


def test_a_word_error_rate_is_better_when_it_is_lower() -> None:
    measured = traces.workload(traces.read(TRACES, ["v100"]), "v100", traces.JOBS["librispeech"])
    assert not measured.spec.higher_is_better_metric


@pytest.mark.parametrize("gpu", traces.GPUS)
@pytest.mark.parametrize("job", traces.JOBS.values(), ids=lambda job: job.dataset)
def test_the_best_power_limit_is_never_more_expensive_than_the_highest(gpu: str, job: traces.TracedJob) -> None:
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
                    limited.sizes[size].epoch_time_s * limited.sizes[size].power_w,
                    limited.sizes[size].epoch_time_s,
                    eta=eta,
                    max_power_w=limited.spec.max_power,
                )
                for limited in (best, highest)
            ]
            assert per_epoch[0] <= per_epoch[1]


@pytest.fixture
def two_lines(tmp_path: Path) -> Path:
    """Return a folder of traces with one batch size and three runs. Two runs never reached the target."""
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
    measured = traces.workload(traces.read(two_lines, ["v100"]), "v100", CIFAR100)
    assert measured.sizes == {64: SizeRecord(5.0, 200.0, (7.0, math.inf, math.inf))}  # the cost of 32 was not measured
    assert measured.spec.default_batch_size == 64


def test_another_measured_target_can_be_selected(two_lines: Path) -> None:
    data = traces.read(two_lines, ["v100"])
    assert data.targets(CIFAR100) == [0.6, 0.7]
    assert traces.workload(data, "v100", replace(CIFAR100, target=0.7)).sizes[64].epochs == (8.0,)
    with pytest.raises(tables.TracesUnusable, match=r"cifar100 to 0\.65 .* v100"):
        traces.workload(data, "v100", replace(CIFAR100, target=0.65))


@pytest.mark.parametrize("missing", ["summary_train.csv", "summary_power_v100.csv"])
def test_a_file_of_traces_that_is_missing_is_named(two_lines: Path, missing: str) -> None:
    (two_lines / missing).unlink()
    with pytest.raises(tables.TracesUnusable, match=missing):
        traces.read(two_lines, ["v100"])


@pytest.mark.parametrize("file", ["summary_train.csv", "summary_power_v100.csv"])
@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00\x9f\n\xff\n"])
def test_a_file_of_traces_with_other_content_is_named(two_lines: Path, file: str, content: bytes) -> None:
    (two_lines / file).write_bytes(content)
    done = command("--traces", str(two_lines), "--workload", "cifar100")
    assert done.exit_code == 1
    assert file in done.output


@pytest.mark.parametrize(
    ("file", "cell", "value", "column"),
    [
        *(("summary_power_v100.csv", ",250,", f",{value},", "power_limit") for value in ("0", "-1", "nan", "")),
        *(
            ("summary_power_v100.csv", ",5,200", f",{value},200", "time_per_epoch")
            for value in ("0", "-1", "nan", "inf")
        ),
        *(("summary_power_v100.csv", ",5,200", f",5,{value}", "average_power") for value in ("0", "-1", "nan", "")),
        *(
            ("summary_power_v100.csv", ",64,adadelta,250", f",{value},adadelta,250", "batch_size")
            for value in ("0", "x")
        ),
        *(("summary_train.csv", "1,0.6,7", f"1,0.6,{value}", "target_epoch") for value in ("0", "-1", "inf", "soon")),
        *(("summary_train.csv", "1,0.6,7", f"1,{value},7", "target_metric") for value in ("nan", "inf", "")),
        *(("summary_train.csv", ",32,", f",{value},", "batch_size") for value in ("0", "-8", "1.5")),
    ],
)
def test_an_impossible_figure_of_the_traces_is_named_with_its_line(
    two_lines: Path, file: str, cell: str, value: str, column: str
) -> None:
    text = (two_lines / file).read_text()
    assert cell in text
    (two_lines / file).write_text(text.replace(cell, value, 1))
    done = command("--traces", str(two_lines), "--workload", "cifar100")
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    line = text[: text.index(cell)].count("\n") + 1
    assert f"{file}, line {line}: {column} is " in done.output


# random trainings


def test_a_random_job_is_the_same_each_time_and_another_number_is_another_job() -> None:
    assert synthetic.workload(3) == synthetic.workload(3)
    assert synthetic.workload(3).sizes != synthetic.workload(4).sizes


@pytest.mark.parametrize("number", range(30))
def test_a_random_job_is_made_of_positive_finite_figures(number: int) -> None:
    random_job = synthetic.workload(number)
    assert random_job.spec.default_batch_size in random_job.spec.batch_sizes
    assert tuple(random_job.sizes) == random_job.spec.batch_sizes == tuple(sorted(random_job.spec.batch_sizes))
    for record in random_job.sizes.values():
        assert 0 < record.epoch_time_s < math.inf
        assert 0 < record.power_w <= random_job.spec.max_power
        assert len(record.epochs) == synthetic.RUNS
        assert all(epochs >= 1 and epochs == int(epochs) for epochs in record.epochs if math.isfinite(epochs))
    assert any(epochs <= random_job.spec.max_epochs for record in random_job.sizes.values() for epochs in record.epochs)


# recorded trials


def ran(batch_size: int, epochs: int, code: str = "converged", **changes: object) -> dict[str, object]:
    """Return an exported trial that ended with a verdict."""
    return JOB | ENDED | {"batch_size": batch_size, "current_epoch": epochs, "outcome_code": code} | changes


def written(file: Path, *trials: dict[str, object]) -> Path:
    """Write an export, and return its file."""
    with file.open("w", newline="") as output:
        writer = csv.DictWriter(output, COLUMNS)
        writer.writeheader()
        writer.writerows(trials)
    return file


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Return a file with a job's exported trials."""
    return written(
        tmp_path / "trials.csv",
        ran(16, 10, time=100, energy=5000),
        ran(32, 12, time=60, energy=6000),
        ran(32, 8, "diverged", time=40, energy=5000),
        ran(64, 2, "ended", status="Failed"),
        ran(64, 0, "", status="Dispatched", time=0, energy=0),
    )


def test_a_jobs_own_trials_make_a_workload(export: Path) -> None:
    recorded_job = recorded.read(export).workload
    assert recorded_job.name == "nightly"
    assert recorded_job.sizes == {
        16: SizeRecord(10.0, 50.0, (10.0,)),
        32: SizeRecord(5.0, 110.0, (12.0, math.inf)),  # 100 s and 11 kJ in 20 epochs
    }
    assert recorded_job.spec.batch_sizes == (16, 32)  # no run ended with 64
    assert (recorded_job.spec.default_batch_size, recorded_job.spec.max_epochs, recorded_job.spec.max_power) == (
        32,
        40,
        300.0,
    )
    assert (recorded_job.spec.eta_knob, recorded_job.spec.beta_knob) == (0.25, 1.5)
    assert recorded.read(export, eta=1.0).workload.spec.eta_knob == 1.0


def test_zeus_uses_the_knobs_of_the_job(export: Path) -> None:
    spec = recorded.read(export).workload.spec
    assert (spec.num_pruning_rounds, spec.window_size, spec.mab_num_explorations) == (3, 7, 4)
    assert (spec.mab_prior_mean, spec.mab_prior_precision) == (-5.0, 0.5)


def test_the_smallest_tried_batch_size_replaces_a_default_that_was_never_tried(tmp_path: Path) -> None:
    recorded_job = recorded.read(written(tmp_path / "trials.csv", ran(64, 10), ran(16, 10)))
    assert recorded_job.workload.spec.default_batch_size == 16
    assert "batch sizes without an ended run are left out: 32" in recorded_job.remarks
    assert "the default batch size, 32, is one of them; 16 replaces it" in recorded_job.remarks


def test_trials_without_an_early_stop_knob_have_no_bound(tmp_path: Path) -> None:
    file = written(tmp_path / "trials.csv", ran(32, 10, beta_knob=""))
    assert recorded.read(file).workload.spec.beta_knob is None


def test_a_target_reached_in_a_validation_after_max_epochs_is_reached(tmp_path: Path) -> None:
    file = written(tmp_path / "trials.csv", ran(32, 45))
    assert recorded.read(file).workload.sizes[32].epochs == (40.0,)


def test_trials_from_before_a_reset_do_not_count(tmp_path: Path) -> None:
    recorded_job = recorded.read(written(tmp_path / "trials.csv", ran(16, 9), ran(32, 30), ran(32, 10, exploration=1)))
    assert {size: record.epochs for size, record in recorded_job.workload.sizes.items()} == {32: (10.0,)}
    assert "trials from before the last reset are left out: 2" in recorded_job.remarks


def test_a_remark_says_that_a_warm_start_is_left_out(tmp_path: Path) -> None:
    recorded_job = recorded.read(written(tmp_path / "trials.csv", ran(32, 9, warm_start_from="donor")))
    assert [remark for remark in recorded_job.remarks if "donor" in remark]


# recorded trials, some of them stopped by their cost bound


def shares(folder: Path, *runs: tuple[int, str]) -> dict[float, float]:
    """Return the probability of each number of epochs, from the epochs and outcomes of one batch size's runs."""
    file = written(folder / "shares.csv", *(ran(32, epochs, code) for epochs, code in runs))
    epochs = recorded.read(file).workload.sizes[32].epochs
    return {count: epochs.count(count) / len(epochs) for count in sorted(set(epochs))}


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([(12, "converged"), (8, "cost_bound")], {12: 1}),
        ([(5, "converged"), (8, "cost_bound"), (12, "converged")], {5: 1 / 3, 12: 2 / 3}),
        ([(5, "converged"), (5, "cost_bound"), (7, "converged"), (9, "converged")], {5: 1 / 4, 7: 3 / 8, 9: 3 / 8}),
        ([(8, "cost_bound"), (12, "converged"), (40, "max_epochs")], {12: 1 / 2, math.inf: 1 / 2}),
        ([(3, "diverged"), (8, "cost_bound"), (12, "converged")], {12: 2 / 3, math.inf: 1 / 3}),
        ([(8, "converged"), (8, "cost_bound")], {8: 1 / 2, math.inf: 1 / 2}),
        ([(9, "cost_bound"), (8, "cost_bound"), (7, "converged")], {7: 1 / 3, math.inf: 2 / 3}),
    ],
    ids=[
        *("one went further", "one of two went further", "a tie", "one ran to the end", "one diverged before"),
        *("none went further", "only stopped ones went further"),
    ],
)
def test_a_run_stopped_by_its_cost_stands_for_those_that_went_further(
    tmp_path: Path, runs: list[tuple[int, str]], expected: dict[float, float]
) -> None:
    assert shares(tmp_path, *runs) == pytest.approx(expected, abs=0.001)


@given(runs=st.lists(st.tuples(st.integers(1, 39), st.sampled_from(["converged", "cost_bound"])), min_size=1))
def test_the_share_of_runs_that_need_more_epochs_is_kaplan_and_meiers(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, str]]
) -> None:
    probabilities = shares(tmp_path_factory.mktemp("trials"), *runs)
    survive = 1.0
    for count in range(1, 40):
        at_risk = sum(had >= count for had, _ in runs)
        reached = sum(had == count and code == "converged" for had, code in runs)
        survive *= 1 - reached / at_risk if at_risk else 1
        assert sum(share for epochs, share in probabilities.items() if epochs > count) == pytest.approx(
            survive, abs=0.0011
        )


def test_a_remark_says_how_many_runs_were_stopped_and_how_they_count(tmp_path: Path) -> None:
    stopped = [ran(16, 10), ran(16, 9, "cost_bound"), ran(32, 10), *[ran(32, 11, "cost_bound")] * 2]
    file = written(tmp_path / "trials.csv", *stopped, ran(64, 10))
    done = command("--trials", str(file), "--policy", "grid")
    assert done.exit_code == 0, done.output
    assert "more epochs than they had: 3; 1 of them count as the runs" in done.output
    assert "; 2, with no such run, count as never converging" in done.output
    assert recorded.read(written(file, ran(16, 10), ran(32, 10), ran(64, 10))).remarks == ()


# files that are no export

HEAD = ",".join(COLUMNS)
FOREIGN = {
    "not a table": b"\x89PNG\r\n\x1a\n\xff\xfe",
    "another table": b"a,b\n1,2\n",
    "a line that is cut off": f"{HEAD}\nnightly,32,0.5\n".encode(),
    "a line that is too long": f"{HEAD}\n{',' * len(COLUMNS)}\n".encode(),
    "no trial": f"{HEAD}\n".encode(),
    "empty": b"",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_file_without_trials_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.csv"
    file.write_bytes(content)
    with pytest.raises(tables.TracesUnusable, match=r"other\.csv"):
        recorded.read(file)


def test_trials_that_have_not_ended_are_refused(tmp_path: Path) -> None:
    running = ran(32, 0, "", status="Dispatched", exploration=1)
    for trials, message in (([running], "ended"), ([ran(32, 9), running], "ended with a verdict since the last reset")):
        with pytest.raises(tables.TracesUnusable, match=message):
            recorded.read(written(tmp_path / "trials.csv", *trials))


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_missing_from_the_trials_is_named(export: Path, column: str) -> None:
    head, *lines = export.read_text().splitlines()
    renamed = ["renamed" if name == column else name for name in head.split(",")]
    export.write_text("\n".join([",".join(renamed), *lines]))
    with pytest.raises(tables.TracesUnusable, match=rf"trials\.csv.*{column}.*lightning-bso export"):
        recorded.read(export)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *((column, value) for column in ("time", "energy") for value in ("soon", "", "-1", "nan", "inf", "1e31")),
        *(("batch_size", value) for value in ("big", "", "0", "-8", "7", "16.0")),
        *(("current_epoch", value) for value in ("", "-1", "1.5", "9" * 5000)),
        *(("eta_knob", value) for value in ("7", "-0.1", "nan", "")),
        *(("beta_knob", value) for value in ("0", "-1", "nan", "inf")),
        *(("max_epochs", value) for value in ("0", "-1", "nan", "2.5")),
        *(("max_power", value) for value in ("0", "-1", "nan", "inf")),
        *(("default_batch_size", value) for value in ("0", "7", "")),
        *(("batch_sizes", value) for value in ("", "16;32", "0.5 32")),
        *((column, value) for column in ("num_pruning_rounds", "window_size") for value in ("-1", "nan", "")),
        *((column, "nan") for column in ("mab_prior_mean", "mab_prior_precision", "mab_num_explorations")),
        *(("mab_prior_precision", "-1"), ("exploration", "-1"), ("exploration", "")),
        *(("status", "Done"), ("outcome_code", ""), ("outcome_code", "continue")),
    ],
)
def test_an_impossible_cell_is_named_with_its_line(tmp_path: Path, column: str, value: str) -> None:
    file = written(tmp_path / "trials.csv", ran(32, 10) | {column: value})
    done = command("--trials", str(file))
    assert done.exit_code == 1
    assert done.output.count("\n") == 1
    assert len(done.output) < 300 + len(str(file))
    if column == "batch_sizes":
        assert "batch_size" in done.output
    else:
        assert f"trials.csv, line 2: {column} is '{value[:40]}', not " in done.output


def test_runs_that_have_used_no_energy_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "trials.csv", ran(16, 10), ran(32, 10, energy=0))
    with pytest.raises(tables.TracesUnusable, match=r"trials\.csv.*batch size 32 have used no energy"):
        recorded.read(file)


def test_the_trials_of_two_jobs_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "trials.csv", ran(32, 10), ran(32, 10, job_id="other"))
    with pytest.raises(tables.TracesUnusable, match=r"line 3: job_id is 'other', not 'nightly'.*one job at a time"):
        recorded.read(file)


def test_an_export_that_a_spreadsheet_has_saved_is_read(export: Path) -> None:
    before = recorded.read(export)
    export.write_bytes(b"\xef\xbb\xbf" + export.read_bytes())
    assert recorded.read(export) == before


def test_trials_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(tables.TracesUnusable, match=r"absent\.csv"):
        recorded.read(tmp_path / "absent.csv")
    with pytest.raises(tables.TracesUnusable, match=tmp_path.name):
        recorded.read(tmp_path)


# studies


def test_nobody_is_cheaper_than_the_clairvoyant_where_runs_do_not_scatter() -> None:
    example = workload({8: (40.0,), 16: (10.0,), 32: (20.0,)})
    comparison = compare(Scenario(example, 12), CONTENDERS, seeds=2)
    assert ratio(comparison.clairvoyant, comparison.clairvoyant, 12) == 1
    assert ratio(comparison.floor, comparison.clairvoyant, 12) == pytest.approx((40 + 11 * 10) / 120)
    assert comparison.default is not None
    assert ratio(comparison.default, comparison.clairvoyant, 12) == pytest.approx(4)
    assert ratio(comparison.floor, comparison.default, 12) <= 1
    for name in CONTENDERS:
        assert ratio(comparison.contenders[name], comparison.clairvoyant, 12) > 1


def test_the_clairvoyant_sees_the_drift_coming() -> None:
    example = workload({8: (20.0,), 16: (30.0,)}, max_epochs=50)
    example = replace(example, sizes=example.sizes | {16: SizeRecord(0.5, 1.0, (30.0,))})  # 15 J, until it fails
    comparison = compare(Scenario(example, 4, drift=Drift(2, 2.0)), [], seeds=1)
    np.testing.assert_allclose(comparison.clairvoyant.cost_j, [[15, 15, 40, 40]])
    np.testing.assert_allclose(comparison.floor.cost_j, [[20, 15, 40, 40]])


def test_what_failed_launches_cost_is_part_of_their_recurrence() -> None:
    comparison = compare(Scenario(workload({8: (math.inf,), 16: (5.0,)}, max_epochs=10), 3), ["grid"], seeds=2)
    np.testing.assert_allclose(comparison.contenders["grid"].cost_j, [[15, 5, 5]] * 2)
    assert comparison.contenders["grid"].failed == 2
    assert comparison.default is None  # 8 never converges
    np.testing.assert_allclose(comparison.floor.cost_j, [[5, 5, 5]] * 2)


def test_a_contender_that_gets_stuck_is_counted_and_its_user_continues_with_the_default() -> None:
    example = workload({8: (10.0,)}, beta_knob=2.0)
    comparison = compare(Scenario(example, 5, drift=Drift(1, 3.0)), ["zeus", "gp-ucb"], seeds=3)
    zeus = comparison.contenders["zeus"]
    assert (zeus.stuck, zeus.endless, zeus.failed) == (3, 0, 3)
    np.testing.assert_allclose(zeus.cost_j, [[10, 21 + 30, 30, 30, 30]] * 3)
    assert (comparison.contenders["gp-ucb"].stuck, comparison.contenders["gp-ucb"].endless) == (0, 0)


def test_a_contender_whose_recurrence_is_endless_is_counted_and_its_user_continues_with_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.core.simulate.MAX_LAUNCHES", 10)
    example = workload({8: (10.0,)}, beta_knob=2.0)
    zeus = compare(Scenario(example, 5, drift=Drift(2, 3.0)), ["zeus"], seeds=2).contenders["zeus"]
    assert (zeus.stuck, zeus.endless, zeus.failed) == (0, 2, 20)
    np.testing.assert_allclose(zeus.cost_j, [[10, 10, 10 * 21 + 30, 30, 30]] * 2)


def test_the_user_of_a_stuck_contender_leaves_a_default_that_does_not_converge_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backend.core.simulate.MAX_LAUNCHES", 10)
    example = workload({8: (40.0,), 16: (20.0,)}, beta_knob=2.0)
    try:
        comparison = compare(Scenario(example, 12, drift=Drift(8, 3.0)), ["zeus"], seeds=1)
    except EndlessRetry as error:
        pytest.fail(f"the study ends with {error}")
    assert comparison.default is None  # from the ninth recurrence on it needs 120 epochs, and the limit is 100
    assert comparison.contenders["zeus"].stuck + comparison.contenders["zeus"].endless == 1
    np.testing.assert_allclose(comparison.contenders["zeus"].cost_j[:, -3:], 60)


def test_a_baseline_has_no_cost_bound() -> None:
    example = workload({8: (10.0,), 16: (90.0,)}, beta_knob=1.0)
    comparison = compare(Scenario(example, 20), ["random", "grid"], seeds=1)
    assert all(outcome.failed == 0 for outcome in comparison.contenders.values())
    assert set(comparison.contenders["random"].cost_j.ravel()) == {10.0, 90.0}


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


def test_a_study_has_the_same_result_in_one_process_and_in_two() -> None:
    scenarios = [Scenario(synthetic.workload(number), 4, concurrency=2) for number in (1, 2)]
    alone, together = (list(compare_all(scenarios, CONTENDERS, seeds=2, jobs=jobs)) for jobs in (1, 2))
    assert [comparison.scenario for comparison in together] == scenarios
    for left, right in zip(alone, together, strict=True):
        assert_same(left, right)


def test_more_seeds_leave_the_first_ones_as_they_are() -> None:
    scenario = Scenario(synthetic.workload(1), 4)
    few, many = (compare(scenario, CONTENDERS, seeds) for seeds in (1, 3))
    for name in CONTENDERS:
        np.testing.assert_array_equal(few.contenders[name].cost_j, many.contenders[name].cost_j[:1])


def test_only_horizons_that_were_simulated_are_reported() -> None:
    outcome = Outcome(*(np.ones((1, 30)) for _ in range(3)))
    comparison = Comparison(Scenario(workload({8: (1.0,)}), 30), outcome, outcome, outcome)
    assert report.horizons(comparison, (20, 50, 100)) == [20, 30]
    assert report.horizons(comparison, (20, 30)) == [20, 30]
    comparison.scenario = Scenario(comparison.scenario.workload, 5)
    assert report.horizons(comparison, (20, 50, 100)) == [5]


# the command


def command(*options: str) -> Result:
    """Run `python -m backend simulate` in this process. Exceptions that it does not handle are raised."""
    return CliRunner().invoke(
        main, ["simulate", "--jobs", "1", "--seeds", "2", "--recurrences", "5", *options], catch_exceptions=False
    )


def on_imagenet(*options: str) -> Result:
    """Run the command on the smallest measured training."""
    return command("--traces", str(TRACES), "--workload", "imagenet", "--gpu", "p100", *options)


def test_the_command_prints_a_table_of_the_policies() -> None:
    done = on_imagenet()
    assert done.exit_code == 0, done.output
    assert "1 workload, 2 seeds, 5 recurrences" in done.output
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


def test_the_command_simulates_random_jobs() -> None:
    done = command("--synthetic", "1", "--policy", "zeus,random")
    assert done.exit_code == 0, done.output
    assert " random " in done.output


def test_the_command_simulates_a_jobs_own_trials(export: Path) -> None:
    done = command("--trials", str(export), "--policy", "grid")
    assert done.exit_code == 0, done.output
    assert " grid " in done.output


def test_the_command_simulates_a_job_whose_default_does_not_survive_a_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.core.simulate.MAX_LAUNCHES", 30)
    done = command("--traces", str(TRACES), "--workload", "cifar100", "--policy", "zeus", "--drift", "3:2")
    assert done.exit_code == 0, done.output


def test_drift_makes_recurrences_more_expensive(tmp_path: Path) -> None:
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
def test_an_unknown_name_is_refused_with_a_list_of_the_known_names(
    option: str, value: str, allowed: tuple[str, ...]
) -> None:
    done = command(option, value)
    assert done.exit_code == 2
    assert option in done.output
    for name in allowed:
        assert name in done.output


@pytest.mark.parametrize(
    "value", ["3", "3:", ":2", "3:2:1", "three:2", "3:two", "3:nan", "3:inf", "3:0", "3:-2", "3:1e308"]
)
def test_an_invalid_drift_is_refused_with_an_example(value: str) -> None:
    done = on_imagenet(f"--drift={value}")
    assert done.exit_code == 2
    assert "60:2.5" in done.output


def test_the_command_names_unusable_data_in_one_line(tmp_path: Path) -> None:
    never = written(tmp_path / "never.csv", ran(32, 40, "max_epochs", job_id="never"))
    for options, message in (
        (("--traces", str(tmp_path)), "summary_train.csv"),
        (("--trials", str(tmp_path / "absent.csv")), "absent.csv"),
        (("--trials", str(never)), "no batch size of never converges"),
        (("--traces", str(TRACES), "--workload", "cifar100", "--target", "0.99"), "cifar100 to 0.99"),
    ):
        done = command(*options)
        assert done.exit_code == 1
        assert message in done.output


def test_a_count_of_one_is_in_the_singular() -> None:
    assert "1 workload, 1 seed, 1 recurrence\n" in on_imagenet("--seeds", "1", "--recurrences", "1").output
    assert (
        "2 workloads, 1 seed, 2 recurrences\n"
        in command("--synthetic", "2", "--policy", "grid", "--seeds", "1", "--recurrences", "1").output
    )


@pytest.mark.parametrize("value", ["nan", "-0.1", "1.1", "inf", "half"])
def test_an_eta_that_is_no_share_is_refused(value: str) -> None:
    done = on_imagenet(f"--eta={value}")
    assert done.exit_code == 2
    assert "--eta" in done.output


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_file_that_cannot_be_written_is_noticed_before_the_simulation(
    tmp_path: Path, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.simulator.cli.compare_all", None)  # the command must end before the simulation
    (tmp_path / "folder.html").mkdir()
    for file, message in (("absent/out.html", "no folder"), ("folder.html", "directory")):
        done = on_imagenet(option, str(tmp_path / file))
        assert done.exit_code == 2
        assert option in done.output
        assert message in done.output


def test_a_file_that_cannot_be_written_after_the_simulation_is_named() -> None:
    done = on_imagenet("--policy", "grid", "--json", "/dev/full")
    assert done.exit_code == 1
    assert " grid " in done.output
    assert "/dev/full: No space left" in done.output


TRIALS, RANDOM = ("--trials", "trials.csv"), ("--synthetic", "2")
MEASURED = (
    *(("--gpu", "v100"), ("--workload", "all"), ("--target", "0.5"), ("--power-limit", "max"), ("--traces", "traces")),
)


@pytest.mark.parametrize(
    "options",
    [(first, second) for first in (TRIALS, RANDOM) for second in (*MEASURED, TRIALS, RANDOM) if first != second],
)
def test_options_of_different_sources_exclude_each_other(options: tuple[tuple[str, str], ...]) -> None:
    first, second = options
    done = command(*first, *second)
    assert done.exit_code == 2
    assert "exclude each other" in done.output
    assert first[0] in done.output and second[0] in done.output
