"""What would keep a training from being optimized, found before it is launched: on this machine, or with its server.

Only what a training would do is tried: the packages are imported, the energy of every GPU is read by the meter that a
run would have, and the server is asked. Nothing is changed by it. Neither torch nor Zeus need be installed.
"""

import io
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from typing import Literal
from urllib.parse import urlsplit

import lightning_bso
from lightning_bso.client import BsoClient
from lightning_bso.energy import WATTS_PER_BUSY_CORE, Machine, joined, make_meter
from lightning_bso.errors import BSOError, EnergyUnavailable, ServerRefused

INSTALL = "pip install 'lightning-bso[lightning]'"
NO_JOB = "batch_size"
"""An id that no job can have."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found."""

    level: Literal["ok", "warning", "problem"]
    """`problem`: a training would fail, or not be optimized."""
    subject: str
    text: str
    """What is the case, and where it is not as it should be, what to do next."""


def check_machine() -> list[Finding]:
    """Look at the packages and the GPUs of this machine, and at how the energy of a training would be measured."""
    # Libraries of GPUs that are not there complain to standard output, and Zeus of windows as short as those here.
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*_check_packages(), *_check_callback(), *_check_gpus()]


def check_server(server_url: str, token: str | None) -> Iterator[Finding]:
    """Look whether a training could use the server; what follows from an earlier problem is not looked at."""
    try:
        client = BsoClient(server_url, token)
        yield Finding("ok", "server", f"{client.address} answers: lightning-bso {client.server_version()}")
    except (BSOError, ValueError) as error:
        yield Finding("problem", "server", str(error))
        return
    began = time.perf_counter()
    try:
        client.check_ready()
    except BSOError as error:
        yield Finding(
            "problem", "database", f"{error}; the server's log and `python -m backend db check` there say why"
        )
        return
    milliseconds = (time.perf_counter() - began) * 1000
    yield Finding("ok", "database", f"ready; there and back took {milliseconds:.1f} ms")
    yield _check_token(client, given=bool(token or urlsplit(server_url).password))


def _check_token(client: BsoClient, given: bool) -> Finding:
    """Ask for something that only those may who may run trainings, of a job that cannot be there."""
    try:
        client.heartbeat(NO_JOB, 1)
    except ServerRefused as refusal:
        if refusal.status == 401:
            return Finding("problem", "token", f"{refusal}. Set $ZEUS_BSO_TOKEN, or give --token")
        if refusal.status == 403:
            return Finding("problem", "token", f"{refusal}. So this one may look at jobs, and not train")
    except BSOError as error:
        return Finding("problem", "token", str(error))
    return Finding("ok", "token", "accepted, and may train (scope run)" if given else "none given, and none is needed")


def _check_packages() -> Iterator[Finding]:
    yield Finding("ok", "python", platform.python_version())
    for name in ("lightning-bso", "pydantic", "requests"):
        yield Finding("ok", name, _version(name) or "not installed as a package, runs from a folder")
    for name in ("torch", "lightning"):
        version = _version(name)
        yield Finding("ok" if version else "warning", name, version or f"not installed; trainings need it: {INSTALL}")
    found = [f"{name} {version}" for name in ("zeus-ml", "zeus") if (version := _version(name))]
    yield Finding("ok", "zeus", ", ".join(found) or f"not installed; trainings on GPUs need it: {INSTALL}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _check_callback() -> Iterator[Finding]:
    try:
        lightning_bso.ZeusBSOCallback  # noqa: B018 - loads torch and Lightning
    except ImportError as error:
        level: Literal["warning", "problem"] = "problem" if _version("lightning") else "warning"
        yield Finding(level, "callback", f"{error}; BatchSizeOptimizer does without")
    except Exception as error:  # of libraries that do not fit together
        yield Finding("problem", "callback", f"ZeusBSOCallback cannot be imported ({_said(error)}): {INSTALL}")
    else:
        yield Finding("ok", "callback", "ZeusBSOCallback can be imported")


def _check_gpus() -> Iterator[Finding]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        hidden = visible.strip() in ("", "-1")
        yield Finding(
            "warning" if hidden else "ok",
            "CUDA_VISIBLE_DEVICES",
            f"{visible!r} hides all GPUs; unset it to use them" if hidden else visible,
        )
    number, why_none = _gpus_of_torch()
    if number == 0:
        yield from _check_estimate(why_none)
        return
    machines = []
    for index in range(number):
        subject = f"GPU {index}"
        try:
            machine = make_meter(gpu_indices=[index]).machine
        except Exception as error:  # whatever a driver comes up with
            known = isinstance(error, EnergyUnavailable)
            yield Finding("problem", subject, str(error) if known else f"its energy cannot be read ({_said(error)})")
            continue
        machines.append(machine)
        if machine.source == "estimated":
            text = "read by Zeus, which does not know it; give the job max_power, gpu_model and number_of_gpus"
            yield Finding("warning", subject, text)
        else:
            yield Finding("ok", subject, f"{machine.gpu_model}, up to {machine.max_power_w:g} W")
    if machines:
        yield _check_source(machines)


def _check_source(machines: list[Machine]) -> Finding:
    """Where the figures of a training on all of these GPUs would come from."""
    try:
        whole = joined(machines)
    except EnergyUnavailable as error:
        return Finding("warning", "energy", f"{error}: by the Trainer's devices, or CUDA_VISIBLE_DEVICES")
    return Finding("ok", "energy", f"{whole.source}: trainings use GPUs, and Zeus reads the counters of these")


def _check_estimate(why: str) -> Iterator[Finding]:
    try:
        seen = make_meter(gpu_indices=[0]).machine.gpu_model
        yield Finding("warning", "GPU 0", f"{seen}: Zeus sees it, but trainings do not use it, as {why}")
    except Exception:  # noqa: S110 - as on every machine without GPUs, or without Zeus
        pass
    yield Finding(
        "warning",
        "energy",
        f"estimated: {why}, so energy is CPU time at {WATTS_PER_BUSY_CORE:g} W per busy core; for a measurement, train "
        "on GPUs",
    )


def _gpus_of_torch() -> tuple[int, str]:
    """How many GPUs a training here would use; if none, why."""
    try:
        import torch

        with warnings.catch_warnings(record=True) as complaints:  # of a driver that torch cannot work with
            warnings.simplefilter("always")
            number = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not (torch.version.cuda or torch.version.hip):
            return number, f"torch {torch.__version__} is built without CUDA"
    except ModuleNotFoundError:
        return 0, "torch is not installed"
    except Exception as error:
        return 0, f"torch cannot be used ({_said(error)})"
    return number, "torch finds no GPU" + "".join(f" ({complaint.message})" for complaint in complaints[:1])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
