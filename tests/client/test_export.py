"""`lightning-bso export` writes a job's trials as CSV, and the simulator reads this file."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas
import pytest

from backend.simulator import recorded
from lightning_bso import BsoClient
from lightning_bso.console.cli import main
from lightning_bso.errors import ServerRefused
from lightning_bso.wire import RegisteredJobSpec, TrialRecord
from tests.client.jobs import registered, report_request
from tests.servers import ROOT, Server


@pytest.fixture
def job_id(server: Server, client: BsoClient) -> str:
    """A job with one converged run, one failed run, and one that is running."""
    spec = client.register(registered(policy="gp-ucb", max_epochs=4))
    name = spec.job_id or ""
    for run, metric in enumerate((1.0, 0.5)):
        trial = client.ask(name, f"run-{run}")
        client.report(report_request(trial, time=2.0, energy=30.0, metric=metric, current_epoch=4))
    client.ask(name, "run-2")
    return name


def test_every_trial_is_a_line(server: Server, job_id: str, tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    assert main(["export", job_id, "--server-url", server.url, "--output", str(file)]) == 0
    rows = list(csv.DictReader(file.open(newline="")))
    assert [row["status"] for row in rows] == ["Succeeded", "Succeeded", "Dispatched"]
    assert [row["converged"] for row in rows] == ["True", "False", ""]
    assert [float(row["energy"]) for row in rows] == [30.0, 30.0, 0.0]
    assert {(row["job_id"], row["policy"], row["max_epochs"]) for row in rows} == {(job_id, "gp-ucb", "4")}


def test_without_a_file_it_goes_to_standard_output(
    server: Server, job_id: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZEUS_BSO_SERVER_URL", server.url)
    assert main(["export", job_id]) == 0
    assert capsys.readouterr().out.count(job_id) == 3


def test_as_json_it_has_every_field_of_the_job_and_of_its_trials(
    server: Server, client: BsoClient, job_id: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", job_id, "--json", "--server-url", server.url]) == 0
    content = json.loads(capsys.readouterr().out)
    assert RegisteredJobSpec.model_validate(content["spec"]) == client.describe(job_id).spec
    assert [TrialRecord.model_validate(trial) for trial in content["trials"]] == client.list_trials(job_id).trials


def test_the_simulator_reads_what_was_exported(server: Server, job_id: str, tmp_path: Path) -> None:
    file = tmp_path / "trials.csv"
    main(["export", job_id, "--server-url", server.url, "--output", str(file)])
    workload = recorded.read(file, eta=0.0).workload
    assert workload.spec.eta_knob == 0.0
    assert sum(len(record.epochs) for record in workload.sizes.values()) == 2
    assert {record.power_w for record in workload.sizes.values()} == {15.0}


def test_the_simulator_reads_stopped_trials_resets_and_the_knobs_of_the_job(
    server: Server, client: BsoClient, tmp_path: Path
) -> None:
    spec = client.register(registered(window_size=5, num_pruning_rounds=1, mab_prior_precision=1e-3))
    name = spec.job_id or ""

    def train(metric: float, energy: float, epochs: int) -> None:
        trial = client.ask(name, f"run-{len(client.list_trials(name).trials)}")
        client.report(report_request(trial, time=energy, energy=energy, metric=metric, current_epoch=epochs))

    train(metric=0.0, energy=1.0, epochs=10)
    server.calls.reset(name)
    train(metric=1.0, energy=30.0, epochs=3)
    train(metric=0.0, energy=70.0, epochs=7)  # more than twice the cost bound
    file = tmp_path / "trials.csv"
    assert main(["export", name, "--server-url", server.url, "--output", str(file)]) == 0
    recording = recorded.read(file)
    epochs = {size: set(record.epochs) for size, record in recording.workload.sizes.items()}
    assert epochs == {16: {3.0}, 8: {math.inf}}
    assert [remark for remark in recording.remarks if "stopped by their cost" in remark and ": 1;" in remark]
    assert "trials from before the last reset are left out: 1" in recording.remarks
    spec = recording.workload.spec
    assert (spec.window_size, spec.num_pruning_rounds, spec.mab_prior_precision) == (5, 1, 1e-3)


def test_an_unknown_job_is_an_error_without_a_traceback(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "nobody", "--server-url", server.url]) == 1
    assert "no job has the id 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_all_trials_and_reports_come_as_files_in_a_folder(
    server: Server, job_id: str, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    arguments = ["export", "--server-url", server.url, "--format", kind, "-o", str(folder)]
    assert main([*arguments, "--all"]) == 0
    assert sorted(file.name for file in folder.iterdir()) == [f"reports.{kind}", f"trials.{kind}"]
    assert str(folder / f"trials.{kind}") in capsys.readouterr().out
    read = pandas.read_csv if kind == "csv" else pandas.read_parquet
    trials, reports = (read(folder / f"{name}.{kind}") for name in ("trials", "reports"))
    assert list(trials[trials["job_id"] == job_id]["trial_number"]) == [1, 2, 3]
    assert list(reports[reports["job_id"] == job_id]["energy_j"]) == [30.0, 30.0]
    assert main([*arguments, job_id]) == 0
    assert set(read(folder / f"trials.{kind}")["job_id"]) == {job_id}


def test_the_example_of_the_documentation_runs(
    server: Server, job_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "server.md").read_text()
    (command,) = re.findall(r"    lightning-bso (export --all .*)", page)
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    assert main([*command.split(), "--server-url", server.url]) == 0
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["means"].loc[job_id]["energy_j"].tolist() == [30.0]
    curves = names["curves"]
    assert curves[curves["job_id"] == job_id]["metric"].tolist() == [0.5]
    assert job_id in capsys.readouterr().out


def test_what_is_to_be_exported_has_to_be_said(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--all", "a-job"]):
        assert main(["export", "--server-url", server.url, *arguments]) == 1
        assert "export needs a JOB or --all" in capsys.readouterr().err


def test_a_refused_export_leaves_no_file(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = BsoClient(server.url)
    with pytest.raises(ServerRefused, match="nobody"), client.export("trials", jobs=["nobody"]):
        pass
    arguments = ["export", "--all", "--server-url", f"{server.url}/nowhere", "-o", str(tmp_path)]
    assert main(arguments) == 1
    assert capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
