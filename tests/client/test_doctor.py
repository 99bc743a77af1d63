"""`lightning-bso doctor`: what it finds on machines with and without GPUs, torch, Zeus and a server."""

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
from tests.servers import ROOT, WaitressServer

Output = pytest.CaptureFixture[str]
CLIENT_NEEDS = (
    *("annotated-types", "certifi", "charset-normalizer", "idna", "pydantic", "pydantic-core", "requests"),
    *("typing-extensions", "typing-inspection", "urllib3"),
)


@pytest.fixture
def zeus_looks_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Zeus that has not looked for GPUs, and does not keep what it finds here."""
    fake_nvml.forget(monkeypatch)
    yield
    fake_nvml.forget(monkeypatch)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch, zeus_looks_anew: None) -> None:
    """Two GPUs of 250 W on which torch trains."""
    fake_nvml.install(monkeypatch, "NVIDIA A40", "NVIDIA A40")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with what the client alone needs, to be a Python's only packages."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for name in CLIENT_NEEDS:
        distribution = metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (folder / part).symlink_to(Path(str(distribution.locate_file(part))))
    (folder / "lightning_bso").symlink_to(ROOT / "lightning_bso")
    return folder


def doctor(url: str, capsys: Output) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit status, and by subject the level and the text of what was found."""
    status = main(["doctor", "--server-url", url])
    return status, findings(capsys.readouterr().out)


def findings(said: str) -> dict[str, tuple[str, str]]:
    lines = [line.split("  ", 1) for line in said.splitlines()]
    parts = [(level, *(part.strip() for part in rest.strip().split("  ", 1))) for level, rest in lines]
    return {subject: (level, text) for level, subject, text in parts}


def run_bare(folder: Path, url: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ZEUS_BSO_")}
    return subprocess.run(
        [sys.executable, "-S", "-m", "lightning_bso.console.cli", "doctor", "--server-url", url],
        env=kept | {"PYTHONPATH": str(folder)},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_zeus_reads_are_named_with_their_power(server: WaitressServer, capsys: Output) -> None:
    status, found = doctor(server.url, capsys)
    assert status == 0
    assert {level for level, _ in found.values()} == {"ok"}
    assert found["GPU 0"] == found["GPU 1"] == ("ok", "NVIDIA A40, up to 250 W")
    assert found["energy"][1].startswith("nvml")
    assert found["zeus"][1].startswith("zeus-ml 0.")
    assert {"python", "torch", "lightning", "pydantic", "requests", "server", "database", "token"} < set(found)


@pytest.mark.usefixtures("two_gpus")
def test_gpus_of_several_models_are_a_warning(
    server: WaitressServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: ["NVIDIA A40", "NVIDIA H100"][handle])
    status, found = doctor(server.url, capsys)
    assert status == 0
    assert [found[f"GPU {index}"][0] for index in range(2)] == ["ok", "ok"]
    level, text = found["energy"]
    assert level == "warning"
    assert "NVIDIA A40, NVIDIA H100" in text


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_whose_counter_fails_is_a_problem_and_the_others_are_not(
    server: WaitressServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def lost(handle: int) -> int:
        if handle == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return 1000

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", lost)
    status, found = doctor(server.url, capsys)
    assert status == 1
    assert found["GPU 0"][0] == "ok"
    assert found["GPU 1"][0] == "problem"
    assert "GPU is lost" in found["GPU 1"][1]


@pytest.mark.usefixtures("zeus_looks_anew")
def test_gpus_that_zeus_cannot_read_are_a_problem(
    server: WaitressServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, found = doctor(server.url, capsys)
    assert status == 1
    assert found["GPU 0"][0] == "problem"
    assert "Install zeus-ml" in found["GPU 0"][1]


@pytest.mark.usefixtures("zeus_looks_anew")
def test_without_gpus_energy_is_estimated_and_that_is_a_warning(server: WaitressServer, capsys: Output) -> None:
    status, found = doctor(server.url, capsys)
    assert status == 0
    level, text = found["energy"]
    assert level == "warning"
    assert text.startswith("estimated: torch")
    assert not [subject for subject in found if subject.startswith("GPU")]


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_torch_cannot_use_are_a_warning_with_its_complaint(
    server: WaitressServer, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def complain() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=2)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", complain)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    status, found = doctor(server.url, capsys)
    assert status == 0
    assert found["GPU 0"][0] == found["energy"][0] == "warning"
    assert found["GPU 0"][1].startswith("NVIDIA A40: Zeus sees it, but trainings do not use it")
    assert "driver on your system is too old" in found["energy"][1]


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("visible", "level"), [("", "warning"), ("-1", "warning"), ("1", "ok")])
def test_hidden_gpus_are_told(
    server: WaitressServer, monkeypatch: pytest.MonkeyPatch, capsys: Output, visible: str, level: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: level == "ok")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    status, found = doctor(server.url, capsys)
    assert status == 0
    assert found["CUDA_VISIBLE_DEVICES"][0] == level
    assert found["energy"][0] == level


def test_a_server_that_is_not_there_is_a_problem(capsys: Output) -> None:
    status, found = doctor(f"http://127.0.0.1:{free_port()}", capsys)
    assert status == 1
    assert found["server"][0] == "problem"
    assert "database" not in found


def test_with_the_client_alone_it_says_what_trainings_need(server: WaitressServer, bare: Path) -> None:
    run = run_bare(bare, server.url)
    assert run.stderr == ""
    assert run.returncode == 0
    found = findings(run.stdout)
    for package in ("torch", "lightning", "zeus"):
        assert "pip install 'lightning-bso[lightning]'" in found[package][1]
    assert found["callback"][0] == "warning"
    assert found["energy"] == (
        "warning",
        "estimated: torch is not installed, so energy is CPU time at 10 W per busy core; for a measurement, train on "
        "GPUs",
    )
    assert found["token"][0] == "ok"


def test_libraries_that_do_not_fit_together_are_a_problem_and_no_crash(server: WaitressServer, bare: Path) -> None:
    for name in ("torch", "lightning"):
        (bare / name).mkdir()
        (bare / name / "__init__.py").write_text("raise OSError('libtorch_cuda.so: undefined symbol')")
    run = run_bare(bare, server.url)
    assert run.stderr == ""
    assert run.returncode == 1
    found = findings(run.stdout)
    assert found["callback"][0] == "problem"
    assert "undefined symbol" in found["callback"][1]
    assert "undefined symbol" in found["energy"][1]
