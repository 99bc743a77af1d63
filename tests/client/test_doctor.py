"""The findings of `lightning-bso doctor` on machines with and without GPUs, torch, Zeus and a server."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pynvml
import pytest
import torch

from lightning_bso.console.cli import main
from tests.client import fake_nvml
from tests.databases import free_port
from tests.servers import ROOT, Server

Output = pytest.CaptureFixture[str]
CLIENT_NEEDS = (
    *("annotated-types", "certifi", "charset-normalizer", "idna", "pydantic", "pydantic-core", "requests"),
    *("tenacity", "typing-extensions", "typing-inspection", "urllib3"),
)


@pytest.fixture
def zeus_looks_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make Zeus look for GPUs again, before the test and after it."""
    fake_nvml.forget(monkeypatch)
    yield
    fake_nvml.forget(monkeypatch)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, zeus_looks_again: None) -> None:
    """Two GPUs of 250 W, visible to torch."""
    fake_nvml.install(monkeypatch, "NVIDIA A40", "NVIDIA A40")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with only the packages that the client requires."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in CLIENT_NEEDS:
        distribution = metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (folder / part).symlink_to(Path(str(distribution.locate_file(part))))
    (folder / "lightning_bso").symlink_to(ROOT / "lightning_bso")
    return folder


def doctor(url: str, capsys: Output) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run the doctor. Return the exit status, and the level and text of each finding by its subject."""
    status = main(["doctor", "--server-url", url])
    return status, parse_findings(capsys.readouterr().out)


def parse_findings(output: str) -> dict[str, tuple[str, str]]:
    lines = [line.split("  ", 1) for line in output.splitlines()]
    parts = [(level, *(part.strip() for part in rest.strip().split("  ", 1))) for level, rest in lines]
    return {subject: (level, text) for level, subject, text in parts}


def run_bare(folder: Path, url: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ZEUS_BSO_")}
    return subprocess.run(
        [sys.executable, "-S", "-m", "lightning_bso.console.cli", "doctor", "--server-url", url],
        env=environment | {"PYTHONPATH": str(folder)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_zeus_reads_are_named_with_their_power(server: Server, capsys: Output) -> None:
    status, findings = doctor(server.url, capsys)
    assert status == 0
    assert {level for level, _ in findings.values()} == {"ok"}
    assert findings["GPU 0"] == findings["GPU 1"] == ("ok", "NVIDIA A40, up to 250 W")
    assert findings["energy"][1].startswith("nvml")
    assert findings["zeus"][1].startswith("zeus-ml 0.")
    assert {"python", "torch", "lightning", "pydantic", "requests", "server", "database", "token"} < set(findings)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_of_several_models_are_a_warning(server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: ["NVIDIA A40", "NVIDIA H100"][handle])
    status, findings = doctor(server.url, capsys)
    assert status == 0
    assert [findings[f"GPU {index}"][0] for index in range(2)] == ["ok", "ok"]
    level, text = findings["energy"]
    assert level == "warning"
    assert "NVIDIA A40, NVIDIA H100" in text


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_whose_counter_fails_is_a_problem_and_the_others_are_not(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def lost(handle: int) -> int:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return 1000

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lost)
    status, findings = doctor(server.url, capsys)
    assert status == 1
    assert findings["GPU 0"][0] == "ok"
    assert findings["GPU 1"][0] == "problem"
    assert "GPU is lost" in findings["GPU 1"][1]


@pytest.mark.usefixtures("zeus_looks_again")
def test_gpus_that_zeus_cannot_read_are_a_problem(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, findings = doctor(server.url, capsys)
    assert status == 1
    assert findings["GPU 0"][0] == "problem"
    assert "pip install 'lightning-bso[zeus]'" in findings["GPU 0"][1]


@pytest.mark.usefixtures("zeus_looks_again")
def test_without_gpus_energy_is_estimated_and_that_is_a_warning(server: Server, capsys: Output) -> None:
    status, findings = doctor(server.url, capsys)
    assert status == 0
    level, text = findings["energy"]
    assert level == "warning"
    assert text.startswith("estimated: torch")
    assert not [subject for subject in findings if subject.startswith("GPU")]


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_torch_cannot_use_are_a_warning_with_its_complaint(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def complain() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", complain)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    status, findings = doctor(server.url, capsys)
    assert status == 0
    assert findings["GPU 0"][0] == findings["energy"][0] == "warning"
    assert findings["GPU 0"][1].startswith("NVIDIA A40: Zeus finds it, but trainings do not use it")
    assert "driver on your system is too old" in findings["energy"][1]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("visible", "level"), [("", "warning"), ("-1", "warning"), ("1", "ok")])
def test_hidden_gpus_are_reported(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output, visible: str, level: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: level == "ok")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, findings = doctor(server.url, capsys)
    assert status == 0
    assert findings["CUDA_VISIBLE_DEVICES"][0] == level
    assert findings["energy"][0] == level


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_visible_by_its_uuid_is_read(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8f11")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, findings = doctor(server.url, capsys)
    assert status == 0
    assert findings["GPU 0"] == ("ok", "NVIDIA A40, up to 250 W")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_partition_is_a_problem_with_zeus_reason_and_a_cure(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5a")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, findings = doctor(server.url, capsys)
    assert status == 1
    level, text = findings["GPU 0"]
    assert level == "problem"
    assert "does not support measuring the power or energy consumption of MIG slices" in text
    assert "name whole GPUs in CUDA_VISIBLE_DEVICES ('MIG-5a' now)" in text


def test_a_server_that_is_not_there_is_a_problem(capsys: Output) -> None:
    status, findings = doctor(f"http://127.0.0.1:{free_port()}", capsys)
    assert status == 1
    assert findings["server"][0] == "problem"
    assert "database" not in findings


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({}, "off: $ZEUS_BSO_AUTO is not 1"),
        ({"ZEUS_BSO_AUTO": "1"}, "off: $ZEUS_BSO_SERVER_URL is not set"),
        ({"ZEUS_BSO_AUTO": "1", "ZEUS_BSO_SERVER_URL": "http://127.0.0.1:1"}, "on: every Trainer gets the callback"),
    ],
)
def test_it_says_whether_trainings_get_the_callback_by_themselves(
    variables: dict[str, str], text: str, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _, findings = doctor(server.url, capsys)
    assert findings["automatic"] == ("ok", f"{text} (registered under both names of Lightning)")


def test_without_an_installation_no_training_gets_the_callback_by_itself(server: Server, bare: Path) -> None:
    level, text = parse_findings(run_bare(bare, server.url).stdout)["automatic"]
    assert level == "ok"
    assert "not registered as lightning.pytorch.callbacks_factory and pytorch_lightning.callbacks_factory" in text


def test_with_the_client_alone_it_says_what_trainings_need(server: Server, bare: Path) -> None:
    run = run_bare(bare, server.url)
    assert run.stderr == ""
    assert run.returncode == 0
    findings = parse_findings(run.stdout)
    for package, extra in (("torch", "lightning"), ("lightning", "lightning"), ("zeus", "zeus")):
        assert f"pip install 'lightning-bso[{extra}]'" in findings[package][1]
    assert findings["callback"][0] == "warning"
    assert findings["energy"] == (
        "warning",
        "estimated: torch is not installed, so energy is CPU time times 10 W per busy core; train on GPUs to measure "
        "it",
    )
    assert findings["token"][0] == "ok"


def test_a_lightning_that_is_too_old_is_named(server: Server, bare: Path) -> None:
    (bare / "pytorch_lightning-2.3.3.dist-info").mkdir()
    (bare / "pytorch_lightning-2.3.3.dist-info" / "METADATA").write_text("Name: pytorch-lightning\nVersion: 2.3.3\n")
    findings = parse_findings(run_bare(bare, server.url).stdout)
    assert findings["pytorch-lightning"] == (
        "warning",
        "2.3.3 is too old for the callback, which requires 2.4; run `pip install --upgrade pytorch-lightning`",
    )


def test_libraries_that_do_not_fit_together_are_a_problem_and_no_crash(server: Server, bare: Path) -> None:
    for name in ("torch", "lightning"):
        (bare / name).mkdir()
        (bare / name / "__init__.py").write_text("raise OSError('libtorch_cuda.so: undefined symbol')")
    run = run_bare(bare, server.url)
    assert run.stderr == ""
    assert run.returncode == 1
    findings = parse_findings(run.stdout)
    assert findings["callback"][0] == "problem"
    assert "undefined symbol" in findings["callback"][1]
    assert "undefined symbol" in findings["energy"][1]
