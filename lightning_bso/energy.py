"""Meters: joules and seconds of a run, and where these figures come from.

`ZeusMeter` reads the GPUs' counters through Zeus, which is imported only when a meter needs it.
`EstimatedMeter` is for machines without any counter. Another source is a class here with the same face,
and a case in `make_meter`.
"""

import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from lightning_bso.errors import EnergyUnavailable
from lightning_bso.wire import EnergySource

log = logging.getLogger(__name__)

WATTS_PER_BUSY_CORE = 10.0
"""Assumed by the estimate: server CPUs are rated at some 5 to 15 W a core. It is a guess, not a measurement."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was used between `begin` and `end` of a meter."""

    energy_j: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run trains on, and where the figures of its energy come from."""

    source: EnergySource
    gpu_model: str
    number_of_gpus: int
    max_power_w: float
    """Maximum power draw, summed over the GPUs; 0 if unknown."""


class EnergyMonitor(Protocol):
    """What is needed of a ZeusMonitor: anything with these three will do."""

    gpu_indices: list[int]

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Begin a measurement."""

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End it; the result has `time` in seconds and `total_energy` in joules."""


class EnergyMeter(Protocol):
    """Measures the energy and time of one run, window by window, and knows the machine it measures."""

    machine: Machine

    def begin(self) -> None:
        """Begin a window."""

    def end(self) -> Reading:
        """End the window."""


class ZeusMeter:
    """Reads the counters of the GPUs that a ZeusMonitor watches.

    Args:
        monitor: a ZeusMonitor (of zeus-ml or of the later zeus package), or anything with its face.

    Raises:
        EnergyUnavailable: it watches no GPU, or GPUs of several models, or their counters cannot be read.
    """

    def __init__(self, monitor: EnergyMonitor) -> None:
        if not monitor.gpu_indices:
            raise EnergyUnavailable(
                "the energy monitor watches no GPU, so every run would seem to cost 0 J. Check "
                "CUDA_VISIBLE_DEVICES and nvidia-smi; for a training on the CPU, give no monitor"
            )
        self._monitor = monitor
        self._window = f"lightning-bso-{uuid.uuid4().hex}"
        # On GPUs a window must end when the queued work has, not before.
        self._synchronize = _uses_cuda()
        self.machine = describe_gpus(monitor.gpu_indices)
        if self.machine.source != "estimated":
            self._try_counters()

    def begin(self) -> None:
        """Begin a window."""
        self._monitor.begin_window(self._window, sync_execution=self._synchronize)

    def end(self) -> Reading:
        """End the window."""
        measured = self._monitor.end_window(self._window, sync_execution=self._synchronize)
        return Reading(float(measured.total_energy), float(measured.time))

    def _try_counters(self) -> None:
        """Read the counters once: those of a part of a GPU (MIG) are there and refuse only then."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Zeus wonders at a window that ends before a counter has moved
                self._monitor.begin_window(self._window, sync_execution=False)
                self._monitor.end_window(self._window, sync_execution=False)
        except Exception as error:  # each driver has its own
            raise EnergyUnavailable(
                f"the energy of the GPUs cannot be read ({type(error).__name__}: {error}). A part of a GPU (MIG) has "
                "no counter of its own; train on whole GPUs"
            ) from error


class EstimatedMeter:
    """Estimates energy as CPU time of this process times an assumed power; data loader workers not included."""

    def __init__(self) -> None:
        # Of all cores, not of those that this process may use: a job is named after its machine.
        self.machine = Machine("estimated", "cpu", 1, WATTS_PER_BUSY_CORE * (os.cpu_count() or 1))
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        """Begin a window."""
        self._began = time.process_time(), time.perf_counter()

    def end(self) -> Reading:
        """End the window."""
        if self._began is None:
            raise RuntimeError("the meter was ended before it was begun")
        cpu_began, began = self._began
        self._began = None
        return Reading((time.process_time() - cpu_began) * WATTS_PER_BUSY_CORE, time.perf_counter() - began)


def make_meter(monitor: EnergyMonitor | None = None, gpu_indices: list[int] | None = None) -> EnergyMeter:
    """The best meter for this run: the monitor given, else Zeus' for a run on GPUs, else an estimate.

    Args:
        monitor: a ZeusMonitor to use, if the caller has one.
        gpu_indices: the GPUs of the run, as the framework counts them, none for a run on the CPU; None: all that
            Zeus sees, if this process uses any.

    Raises:
        EnergyUnavailable: the run uses GPUs whose energy cannot be read.
    """
    if monitor is not None:
        return ZeusMeter(monitor)
    if _uses_cuda() if gpu_indices is None else gpu_indices:
        return ZeusMeter(make_zeus_monitor(gpu_indices))
    return EstimatedMeter()


def joined(parts: list[Machine]) -> Machine:
    """One machine of several, such as the GPUs of a run, or its nodes.

    Raises:
        EnergyUnavailable: they differ.
    """
    if len({(part.source, part.gpu_model) for part in parts}) > 1:
        models, sources = ({part.gpu_model for part in parts}, {part.source for part in parts})
        differences = ", ".join(sorted(models if len(models) > 1 else sources))
        raise EnergyUnavailable(
            f"the GPUs of this run differ ({differences}), so its costs would not be comparable; use GPUs of one model"
        )
    first = parts[0]
    number_of_gpus, max_power_w = (sum(part.number_of_gpus for part in parts), sum(part.max_power_w for part in parts))
    return Machine(first.source, first.gpu_model, number_of_gpus, max_power_w)


def _uses_cuda() -> bool:
    """Whether this process trains on GPUs. Looks at torch only if the training has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())


def gpu_indices(root_device: Any) -> list[int]:
    """The GPU that a process trains on, given the torch.device that its framework has picked; none on the CPU."""
    return [root_device.index or 0] if root_device.type == "cuda" else []


def make_zeus_monitor(gpu_indices: list[int] | None) -> EnergyMonitor:
    """A ZeusMonitor of these GPUs; None: of all that Zeus sees.

    Raises:
        EnergyUnavailable: their energy cannot be read.
    """
    os.environ.setdefault("ZEUS_LOG_LEVEL", "WARNING")  # Zeus logs to standard output, from its import on
    try:
        from zeus.monitor import ZeusMonitor

        monitor: EnergyMonitor = ZeusMonitor(gpu_indices=gpu_indices)
    except Exception as error:  # Zeus raises many kinds, KeyError for a missing library among them
        raise EnergyUnavailable(
            f"this training uses GPUs, but Zeus cannot read their energy ({type(error).__name__}: {error}). "
            "Install zeus-ml and the GPU driver's management library, or give an energy monitor that works"
        ) from error
    return monitor


def describe_gpus(gpu_indices: list[int]) -> Machine:
    """GPUs, as far as Zeus knows them.

    Raises:
        EnergyUnavailable: they are of several models.
    """
    os.environ.setdefault("ZEUS_LOG_LEVEL", "WARNING")
    try:
        from zeus.device import get_gpus

        gpus = get_gpus()
        # zeus-ml writes getName, the later zeus package get_name.
        names = {index: _either(gpus, "getName", "get_name")(index) for index in gpu_indices}
        limits = _either(gpus, "getPowerManagementLimitConstraints", "get_power_management_limit_constraints")
        powers_w = {index: limits(index)[1] / 1000 for index in gpu_indices}
    except Exception as error:
        log.warning(
            "Zeus cannot describe the GPUs of this energy monitor (%s: %s), so its figures are labelled "
            "'estimated', and the job must say max_power, gpu_model and number_of_gpus",
            type(error).__name__,
            error,
        )
        return Machine("estimated", "", len(gpu_indices), 0.0)
    source: EnergySource = "amd" if "AMD" in type(gpus).__name__ else "nvml"
    return joined([Machine(source, name, 1, powers_w[index]) for index, name in names.items()])


def power_limits_mw(gpu_indices: list[int]) -> dict[int, int]:
    """The power limits that GPUs have at present, of those that tell."""
    return _told(gpu_indices, _power_limit_mw)


def default_power_limits_mw(gpu_indices: list[int]) -> dict[int, int]:
    """The power limits that GPUs have if nobody sets another, of those that tell."""
    return _told(gpu_indices, _default_power_limit_mw)


def _told(gpu_indices: list[int], ask: Callable[[Any, int], int]) -> dict[int, int]:
    from zeus.device import get_gpus

    gpus = get_gpus()
    found = {}
    for index in gpu_indices:
        with suppress(Exception):  # a driver that does not tell can still be asked to set the default
            found[index] = ask(gpus, index)
    return found


def _power_limit_mw(gpus: Any, index: int) -> int:
    if hasattr(gpus, "get_power_management_limit"):
        return int(gpus.get_power_management_limit(index))
    import pynvml  # zeus-ml can set a limit, but not tell it

    return int(pynvml.nvmlDeviceGetPowerManagementLimit(gpus.gpus[index].handle))


def _default_power_limit_mw(gpus: Any, index: int) -> int:
    import pynvml  # Zeus can set the default, but not tell it

    return int(pynvml.nvmlDeviceGetPowerManagementDefaultLimit(gpus.gpus[index].handle))


def put_back_power_limits(gpu_indices: list[int], limits_mw: dict[int, int]) -> None:
    """Give GPUs these power limits again, and their default where none is known.

    Raises what Zeus raises where that is not permitted.
    """
    from zeus.device import get_gpus

    gpus = get_gpus()
    for index in gpu_indices:
        if index in limits_mw:
            _either(gpus, "setPowerManagementLimit", "set_power_management_limit")(index, limits_mw[index])
        else:
            _either(gpus, "resetPowerManagementLimit", "reset_power_management_limit")(index)


def _either(of: Any, older: str, newer: str) -> Any:
    return getattr(of, older, None) or getattr(of, newer)
