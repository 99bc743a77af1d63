"""Energy meters, which measure the joules and seconds of a run, and the power limits of GPUs.

`ZeusMeter` reads the GPUs' energy counters through Zeus. Zeus is imported only when a meter needs it.
`EstimatedMeter` is for machines without a counter. To add another source, write a class here with the methods of
`EnergyMeter`, and choose it in `make_meter`. How the optimizer handles a meter that fails: `measurement`.
"""

import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from lightning_bso.errors import EnergyUnavailable
from lightning_bso.quantities import duration
from lightning_bso.wire import MAX_STILL_S, EnergySource

log = logging.getLogger(__name__)

WATTS_PER_BUSY_CORE = 10.0
"""Assumed power of a core for the estimate. Server CPUs are rated at about 5 to 15 W per core; this is a guess."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy and time between `begin` and `end` of a meter."""

    energy_j: float
    time_s: float


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPUs that a run trains on, and the source of its energy figures."""

    source: EnergySource
    gpu_model: str
    number_of_gpus: int
    max_power_w: float
    """Maximum power draw, summed over the GPUs; 0 if unknown."""


class EnergyMonitor(Protocol):
    """The part of a ZeusMonitor that the meter uses. Another class with these three members works, too."""

    gpu_indices: list[int]

    def begin_window(self, key: str, sync_execution: bool = True) -> None:
        """Begin a measurement window."""

    def end_window(self, key: str, sync_execution: bool = True) -> Any:
        """End the window. The result has `time` in seconds and `total_energy` in joules."""


class EnergyMeter(Protocol):
    """Measures the energy and time of one run, window by window, and describes the measured machine."""

    machine: Machine

    def begin(self) -> None:
        """Begin a window."""

    def end(self) -> Reading:
        """End the window."""


class ZeusMeter:
    """Reads the energy counters of the GPUs that a ZeusMonitor watches.

    Args:
        monitor: a ZeusMonitor (from zeus-ml or from the later zeus package), or another object with its interface.

    Raises:
        EnergyUnavailable: the monitor watches no GPU or GPUs of several models, or a counter cannot be read.
    """

    def __init__(self, monitor: EnergyMonitor) -> None:
        if not monitor.gpu_indices:
            raise EnergyUnavailable(
                f"the energy monitor watches no GPU, so every run would cost 0 J{_why_zeus_finds_none()}. Check "
                "CUDA_VISIBLE_DEVICES and nvidia-smi. For a training on the CPU, give no monitor"
            )
        self._monitor = monitor
        self._window = f"lightning-bso-{uuid.uuid4().hex}"
        self._still_s: dict[str, float] = {}  # for how long each counter has not moved
        # On GPUs, a window must not end before the queued work has ended.
        self._synchronize = _uses_cuda()
        self.machine = describe_gpus(monitor.gpu_indices)
        if self.machine.source != "estimated":
            self._check_counters()

    def begin(self) -> None:
        """Begin a window."""
        self._monitor.begin_window(self._window, sync_execution=self._synchronize)

    def end(self) -> Reading:
        """End the window.

        Raises:
            EnergyUnavailable: the energy counter did not move.
        """
        measured = self._monitor.end_window(self._window, sync_execution=self._synchronize)
        reading = Reading(float(measured.total_energy), float(measured.time))
        of_gpus: dict[int, float] = getattr(measured, "gpu_energy", {})
        counters = {"of all GPUs": reading.energy_j} | {f"of GPU {gpu}": joules for gpu, joules in of_gpus.items()}
        for counter, energy_j in counters.items():
            self._still_s[counter] = 0.0 if energy_j else self._still_s.get(counter, 0.0) + reading.time_s
        still_s = max(self._still_s.values())
        if still_s > MAX_STILL_S:
            which = next(counter for counter, time_s in self._still_s.items() if time_s == still_s)
            raise EnergyUnavailable(
                f"the energy counter {which} did not move in {duration(still_s)}. Some virtual GPUs (vGPU) and older "
                "cards have none. Where Zeus polls the power in a process of its own, the script needs an "
                "`if __name__ == '__main__':` guard"
            )
        return reading

    def _check_counters(self) -> None:
        """Read the counters once. On some GPUs a counter exists, but reading it fails."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Zeus warns about a window in which no counter changed
                self._monitor.begin_window(self._window, sync_execution=False)
                self._monitor.end_window(self._window, sync_execution=False)
        except Exception as error:  # each driver raises its own class
            raise EnergyUnavailable(
                f"the energy of the GPUs cannot be read ({type(error).__name__}: {error}). A GPU partition (MIG), a "
                "virtual GPU (vGPU) and some older cards have no energy counter of their own. Train on whole GPUs of "
                "a later model, or give a monitor that measures these"
            ) from error


class EstimatedMeter:
    """Estimates energy as CPU time of this process times an assumed power. Data loader workers are not included."""

    def __init__(self) -> None:
        # Counts all cores, not only those that this process may use, because a job is named after its machine.
        self.machine = Machine("estimated", "cpu", 1, WATTS_PER_BUSY_CORE * (os.cpu_count() or 1))
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        """Begin a window."""
        self._began = time.process_time(), time.perf_counter()

    def end(self) -> Reading:
        """End the window."""
        if self._began is None:
            raise RuntimeError("end() was called before begin()")
        cpu_began, began = self._began
        self._began = None
        return Reading((time.process_time() - cpu_began) * WATTS_PER_BUSY_CORE, time.perf_counter() - began)


def make_meter(monitor: EnergyMonitor | None = None, gpu_indices: list[int] | None = None) -> EnergyMeter:
    """Return a meter for this run: the given monitor's, else Zeus' if the run uses GPUs, else an estimate.

    Args:
        monitor: a ZeusMonitor, if the caller has one.
        gpu_indices: the GPUs of the run, as the framework counts them. Empty: the run is on the CPU. None: all GPUs
            that Zeus finds, if this process uses any GPU.

    Raises:
        EnergyUnavailable: the run uses GPUs whose energy cannot be read.
    """
    if monitor is not None:
        return ZeusMeter(monitor)
    if _uses_cuda() if gpu_indices is None else gpu_indices:
        return ZeusMeter(make_zeus_monitor(gpu_indices))
    return EstimatedMeter()


def join_machines(parts: list[Machine]) -> Machine:
    """Return one machine that stands for several, such as the GPUs or the nodes of a run.

    Raises:
        EnergyUnavailable: the machines have different GPU models or energy sources.
    """
    if len({(part.source, part.gpu_model) for part in parts}) > 1:
        models, sources = {part.gpu_model for part in parts}, {part.source for part in parts}
        differences = ", ".join(sorted(models if len(models) > 1 else sources))
        raise EnergyUnavailable(
            f"the GPUs of this run differ ({differences}), so its costs would not be comparable; use GPUs of one model"
        )
    first = parts[0]
    return Machine(
        first.source,
        first.gpu_model,
        number_of_gpus=sum(part.number_of_gpus for part in parts),
        max_power_w=sum(part.max_power_w for part in parts),
    )


def _uses_cuda() -> bool:
    """Return whether this process trains on GPUs. Asks torch only if the training has imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())


def gpu_indices(root_device: Any) -> list[int]:
    """Return the GPU index of a torch.device that the framework trains on, as a list. Empty on the CPU."""
    return [root_device.index or 0] if root_device.type == "cuda" else []


def make_zeus_monitor(gpu_indices: list[int] | None) -> EnergyMonitor:
    """Return a ZeusMonitor of these GPUs, or of all GPUs that Zeus finds if `gpu_indices` is None.

    Raises:
        EnergyUnavailable: the energy of the GPUs cannot be read.
    """
    os.environ.setdefault("ZEUS_LOG_LEVEL", "WARNING")  # from its import on, Zeus logs to standard output
    try:
        from zeus.device import get_gpus
        from zeus.monitor import ZeusMonitor

        with _visible_by_index():
            get_gpus()  # says why there are no GPUs, which ZeusMonitor does not
            monitor: EnergyMonitor = ZeusMonitor(gpu_indices=gpu_indices)
    except Exception as error:  # Zeus raises many classes, for example KeyError for a missing library
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        raise EnergyUnavailable(
            f"this training uses GPUs, but Zeus cannot read their energy ({type(error).__name__}: {error}). "
            "Install Zeus (pip install 'lightning-bso[zeus]') and the GPU driver's management library, "
            + (f"name whole GPUs in CUDA_VISIBLE_DEVICES ({visible!r} now), " if visible is not None else "")
            + "or give a working energy monitor"
        ) from error
    return monitor


@contextmanager
def _visible_by_index() -> Iterator[None]:
    """Put indices into CUDA_VISIBLE_DEVICES while Zeus reads it, because Zeus does not read UUIDs."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = _visible_indices(visible) if visible else []
    if not visible or not indices:
        yield
        return
    _uses_cuda()  # CUDA reads the variable once, and must read the original
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, indices))
    try:
        yield
    finally:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible


def _visible_indices(visible: str) -> list[int]:
    """Return the indices of the NVIDIA GPUs that CUDA sees. Empty: it sees none, or partitions of a GPU (MIG).

    By CUDA's rules, the list ends before the first entry that names no GPU, or that is of another kind than the first.
    A UUID may be abbreviated as long as it names one GPU.
    """
    from zeus.device.gpu.nvidia import nvml_is_available

    if not nvml_is_available():
        return []
    import pynvml

    by_uuid = visible.startswith("GPU-")
    names = [_uuid(index) if by_uuid else str(index) for index in range(pynvml.nvmlDeviceGetCount())]
    indices: list[int] = []
    for entry in map(str.strip, visible.split(",")):
        is_uuid = entry.startswith("GPU-")
        named = [index for index, name in enumerate(names) if (name.startswith(entry) if is_uuid else name == entry)]
        if len(named) != 1:
            break
        indices += named
    return indices


def _uuid(index: int) -> str:
    """Return the UUID of an NVIDIA GPU, or "?" if it cannot be read. The other GPUs may still be measured."""
    import pynvml

    try:
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index)))
    except pynvml.NVMLError:
        return "?"


def _why_zeus_finds_none() -> str:
    """Return in brackets why Zeus finds no GPU. Empty if it finds some."""
    try:
        from zeus.device import get_gpus

        get_gpus()
    except Exception as error:
        return f" ({type(error).__name__}: {error})"
    return ""


def describe_gpus(gpu_indices: list[int]) -> Machine:
    """Return the model and power of these GPUs, as far as Zeus knows them.

    Raises:
        EnergyUnavailable: the GPUs are of several models.
    """
    os.environ.setdefault("ZEUS_LOG_LEVEL", "WARNING")
    try:
        from zeus.device import get_gpus

        with _visible_by_index():
            gpus = get_gpus()
        # The method is getName in zeus-ml, and get_name in the later zeus package.
        names = {index: _first_attribute(gpus, "getName", "get_name")(index) for index in gpu_indices}
        limits = _first_attribute(gpus, "getPowerManagementLimitConstraints", "get_power_management_limit_constraints")
        powers_w = {index: limits(index)[1] / 1000 for index in gpu_indices}
    except Exception as error:
        log.warning(
            "Zeus does not know the GPUs of this energy monitor (%s: %s). Its figures are labelled 'estimated', and "
            "the job must set max_power, gpu_model and number_of_gpus",
            type(error).__name__,
            error,
        )
        return Machine("estimated", "", len(gpu_indices), 0.0)
    source: EnergySource = "amd" if "AMD" in type(gpus).__name__ else "nvml"
    return join_machines([Machine(source, name, 1, powers_w[index]) for index, name in names.items()])


def power_limits_mw(gpu_indices: list[int]) -> dict[int, int]:
    """Return the GPUs' current power limits in milliwatts. A GPU whose limit cannot be read is left out."""
    return _read_limits(gpu_indices, _power_limit_mw)


def default_power_limits_mw(gpu_indices: list[int]) -> dict[int, int]:
    """Return the GPUs' default power limits in milliwatts. A GPU whose default cannot be read is left out."""
    return _read_limits(gpu_indices, _default_power_limit_mw)


def _read_limits(gpu_indices: list[int], read: Callable[[Any, int], int]) -> dict[int, int]:
    from zeus.device import get_gpus

    gpus = get_gpus()
    limits_mw = {}
    for index in gpu_indices:
        with suppress(Exception):  # a GPU that is left out can still be set to its default
            limits_mw[index] = read(gpus, index)
    return limits_mw


def _power_limit_mw(gpus: Any, index: int) -> int:
    if hasattr(gpus, "get_power_management_limit"):
        return int(gpus.get_power_management_limit(index))
    import pynvml  # zeus-ml can set a limit, but not read it

    return int(pynvml.nvmlDeviceGetPowerManagementLimit(gpus.gpus[index].handle))


def _default_power_limit_mw(gpus: Any, index: int) -> int:
    import pynvml  # Zeus can set the default, but not read it

    return int(pynvml.nvmlDeviceGetPowerManagementDefaultLimit(gpus.gpus[index].handle))


def restore_power_limits(gpu_indices: list[int], limits_mw: dict[int, int]) -> None:
    """Set these power limits again, and the default on a GPU without a limit in `limits_mw`.

    Raises:
        Exception: Zeus' error, if this process has no permission to set a limit.
    """
    from zeus.device import get_gpus

    gpus = get_gpus()
    for index in gpu_indices:
        if index in limits_mw:
            _first_attribute(gpus, "setPowerManagementLimit", "set_power_management_limit")(index, limits_mw[index])
        else:
            _first_attribute(gpus, "resetPowerManagementLimit", "reset_power_management_limit")(index)


def _first_attribute(gpus: Any, older: str, newer: str) -> Any:
    return getattr(gpus, older, None) or getattr(gpus, newer)
