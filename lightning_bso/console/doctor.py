"""Checks a training machine and its server before a training is launched.

Each check does what a training would do: it imports the packages, reads every GPU's energy with a run's meter, and
calls the server. The checks change nothing, and they work without torch and without Zeus.
`cli` prints the findings.
"""

import importlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import lightning_bso
from lightning_bso import factory
from lightning_bso.client import BsoClient
from lightning_bso.energy import WATTS_PER_BUSY_CORE, Machine, join_machines, make_meter
from lightning_bso.errors import BSOError, EnergyUnavailable, ServerRefused
from lightning_bso.identity import of_another_default
from lightning_bso.variables import AUTO, AUTO_DESCRIBE, SERVER_URL
from lightning_bso.wire import HeartbeatRequest, JobSummary

INSTALL, INSTALL_ZEUS = "pip install 'lightning-bso[lightning]'", "pip install 'lightning-bso[zeus]'"
FAMILIES = ("lightning", "pytorch-lightning")
"""The packages that bring Lightning, under its two names."""
MIN_LIGHTNING = "2.4"
NO_JOB = "batch_size"
"""An id that no job can have, because it is reserved."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    level: Literal["ok", "warning", "problem"]
    """`problem`: a training would fail, or would not be optimized."""
    subject: str
    text: str
    """The state, and what to do about a warning or a problem."""


def check_machine() -> list[Finding]:
    """Check this machine's packages and GPUs, and how a training's energy would be measured."""
    # Without GPUs their libraries print to standard output. Zeus warns about windows as short as the ones here.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*_check_packages(), *_check_amdsmi(), *_check_callback(), _check_factory(), *_check_gpus()]


def check_training(command: Sequence[str], server_url: str, token: str | None = None) -> Finding:
    """Check what the automatic callback would do in a training. The program runs up to its fit, and trains nothing.

    Args:
        command: a Python script with its arguments.
        server_url: address of the server. It is asked whether it knows the job.
        token: the access token, if any.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "preview.json"
        variables = {AUTO: "1", SERVER_URL: server_url, AUTO_DESCRIBE: str(file)}
        own = [sys.executable, *command]  # the user's own script
        run = subprocess.run(own, env=os.environ | variables, capture_output=True, check=False)  # noqa: S603
        if not file.exists():
            last = run.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            text = (
                f"it ended with exit code {run.returncode}, and no fit asked the factory (see automatic). Its "
                f"last line: {last!r}"
            )
            return Finding("problem", "training", text)
        preview: dict[str, Any] = json.loads(file.read_text())
    if "aside" in preview:
        return Finding("warning", "training", f"the automatic callback takes no part: {preview['aside']}")
    if "refused" in preview:
        return Finding("problem", "training", f"the training would go on without the optimizer: {preview['refused']}")
    known = _find_job(server_url, token, preview["job_id"])
    own, default = preview["batch_size"], None if known is None else known.spec.default_batch_size
    if default is not None and default != own:
        reason = of_another_default(preview["job_id"], default, own)
        return Finding("warning", "training", f"the training would go on without the optimizer: {reason}")
    name = f"new job {preview['job_id']}" if known is None else f"job {preview['job_id']}, trials so far {known.trials}"
    return Finding("ok", "training", f"with {AUTO}=1, it is a run of the {name}: {preview['job']}")


def _find_job(server_url: str, token: str | None, job_id: str) -> JobSummary | None:
    """Return a job as the server knows it. None: it knows none, or does not answer, which `check_server` reports."""
    try:
        return BsoClient(server_url, token).describe(job_id)
    except (BSOError, ValueError):
        return None


def check_server(server_url: str, token: str | None) -> Iterator[Finding]:
    """Check whether a training can use the server. Stop at the first problem."""
    try:
        client = BsoClient(server_url, token)
        yield Finding("ok", "server", f"{client.address} answers: lightning-bso {client.server_version()}")
    except (BSOError, ValueError) as error:
        yield Finding("problem", "server", str(error))
        return
    start = time.perf_counter()
    try:
        client.check_ready()
    except BSOError as error:
        yield Finding(
            "problem",
            "database",
            f"{error}; for the cause, see the server's log or run `lightning-bso server db check` on the server",
        )
        return
    milliseconds = (time.perf_counter() - start) * 1000
    yield Finding("ok", "database", f"ready; the request took {milliseconds:.1f} ms")
    yield _check_token(client, has_token=bool(token or urlsplit(server_url).password))


def _check_token(client: BsoClient, has_token: bool) -> Finding:
    """Make a call that requires the scope of trainings, for a job that cannot exist."""
    try:
        client.heartbeat(HeartbeatRequest(job_id=NO_JOB, trial_number=1))
    except ServerRefused as refusal:
        if refusal.status == 401:
            return Finding("problem", "token", f"{refusal}. Set $ZEUS_BSO_TOKEN, or give --token")
        if refusal.status == 403:
            return Finding("problem", "token", f"{refusal}. This token can read jobs, but a training cannot use it")
    except BSOError as error:
        return Finding("problem", "token", str(error))
    return Finding(
        "ok", "token", "accepted; trainings may use it (scope run)" if has_token else "none given, and none is required"
    )


def _check_packages() -> Iterator[Finding]:
    yield Finding("ok", "python", platform.python_version())
    for name in ("lightning-bso", "pydantic", "requests"):
        yield Finding("ok", name, _version(name) or "not installed as a package; runs from its folder")
    for subject, names in (("torch", ("torch",)), ("lightning", FAMILIES)):
        found = _releases(*names)
        text = found or f"not installed; trainings require it: {INSTALL}"
        yield Finding("ok" if found else "warning", subject, text)
    for name in FAMILIES:
        version = _version(name)
        if version is not None and _numbers(version) < _numbers(MIN_LIGHTNING):
            text = f"{version} is too old for the callback, which requires {MIN_LIGHTNING}"
            yield Finding("warning", name, f"{text}; run `pip install --upgrade {name}`")
    text = _releases("zeus-ml", "zeus") or f"not installed; trainings on GPUs require it: {INSTALL_ZEUS}"
    yield Finding("ok", "zeus", text)


def _numbers(version: str) -> list[int]:
    return list(map(int, re.findall(r"\d+", version)[:2]))


def _releases(*packages: str) -> str:
    """Return those of the packages that are installed, with their versions."""
    return ", ".join(f"{package} {version}" for package in packages if (version := _version(package)))


def _check_amdsmi() -> Iterator[Finding]:
    """Check for a package that Zeus requires, and that breaks Ray on a machine without AMD's library."""
    release = _releases("amdsmi")
    if not release or not _version("ray"):
        return
    try:
        importlib.import_module("amdsmi")
    except ImportError:  # Zeus and Ray take this for "not installed"
        return
    except Exception as error:  # KeyError in 7.0
        yield Finding(
            "problem",
            "ray",
            f"`import ray` fails, because {release} (of Zeus) cannot be imported without AMD's library "
            f"({_describe(error)}). Run `pip uninstall amdsmi`: Zeus measures other GPUs without it",
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_callback() -> Iterator[Finding]:
    try:
        lightning_bso.ZeusBSOCallback  # noqa: B018 - loads torch and Lightning
    except ImportError as error:
        level: Literal["warning", "problem"] = "problem" if _releases(*FAMILIES) else "warning"
        yield Finding(level, "callback", f"{error}; BatchSizeOptimizer works without it")
    except Exception as error:  # of incompatible libraries
        yield Finding("problem", "callback", f"ZeusBSOCallback cannot be imported ({_describe(error)}): {INSTALL}")
    else:
        yield Finding("ok", "callback", "ZeusBSOCallback can be imported")


def _check_factory() -> Finding:
    """Check whether Lightning finds the factory under each of its names, and whether it is on."""
    missing = [group for group in factory.GROUPS if not _is_registered(group)]
    off = factory.why_off(os.environ)
    if missing:
        level: Literal["ok", "warning"] = "ok" if off else "warning"
        text = f"not registered as {' and '.join(missing)}; to train without code, install with `pip install .`"
        return Finding(level, "automatic", text)
    state = f"off: {off}" if off else "on: every Trainer gets the callback"
    return Finding("ok", "automatic", f"{state} (registered under both names of Lightning)")


def _is_registered(group: str) -> bool:
    functions = {entry.value for entry in metadata.entry_points(group=group)}
    return f"{factory.__name__}:{factory.make_callbacks.__name__}" in functions


def _check_gpus() -> Iterator[Finding]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        hidden = visible.strip() in ("", "-1")
        yield Finding(
            "warning" if hidden else "ok",
            "CUDA_VISIBLE_DEVICES",
            f"{visible!r} hides all GPUs; unset the variable to use them" if hidden else visible,
        )
    number, why_none = _count_torch_gpus()
    if number == 0:
        yield from _check_estimate(why_none)
        return
    machines = []
    for index in range(number):
        subject = f"GPU {index}"
        try:
            machine = make_meter(gpu_indices=[index]).machine
        except Exception as error:  # each driver raises its own class
            is_explained = isinstance(error, EnergyUnavailable)
            text = str(error) if is_explained else f"its energy cannot be read ({_describe(error)})"
            yield Finding("problem", subject, text)
            continue
        machines.append(machine)
        if machine.source == "estimated":
            text = "Zeus reads its energy, but not its model; set max_power, gpu_model and number_of_gpus in the job"
            yield Finding("warning", subject, text)
        else:
            yield Finding("ok", subject, f"{machine.gpu_model}, up to {machine.max_power_w:g} W")
    if machines:
        yield _check_source(machines)


def _check_source(machines: list[Machine]) -> Finding:
    """Check the source of the energy figures of a training on all of these GPUs."""
    try:
        machine = join_machines(machines)
    except EnergyUnavailable as error:
        return Finding(
            "warning", "energy", f"{error}: select them with the Trainer's devices, or with CUDA_VISIBLE_DEVICES"
        )
    return Finding("ok", "energy", f"{machine.source}: trainings use the GPUs, and Zeus reads their energy counters")


def _check_estimate(why: str) -> Iterator[Finding]:
    try:
        model = make_meter(gpu_indices=[0]).machine.gpu_model
        yield Finding("warning", "GPU 0", f"{model}: Zeus finds it, but trainings do not use it, because {why}")
    except Exception:  # noqa: S110 - expected on a machine without GPUs or without Zeus
        pass
    yield Finding(
        "warning",
        "energy",
        f"estimated: {why}, so energy is CPU time times {WATTS_PER_BUSY_CORE:g} W per busy core; train on GPUs to "
        "measure it",
    )


def _count_torch_gpus() -> tuple[int, str]:
    """Return the number of GPUs that torch finds, and the reason if it finds none."""
    try:
        import torch

        with warnings.catch_warnings(record=True) as complaints:  # for example about an old driver
            warnings.simplefilter("always")
            number = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not (torch.version.cuda or torch.version.hip):
            return number, f"torch {torch.__version__} is built without CUDA"
    except ModuleNotFoundError:
        return 0, "torch is not installed"
    except Exception as error:
        return 0, f"torch cannot be used ({_describe(error)})"
    return number, "torch finds no GPU" + "".join(f" ({complaint.message})" for complaint in complaints[:1])


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
