"""Names a process, and tells from the name of another process whether that one still runs.

A name is `BOOT/NAMESPACE/PID/START/RESTARTS`. The first four make it unique: the machine's boot, the PID namespace (a
container has its own), the PID, and the start of the process, because a PID is used again. The last are the
scheduler's counts of restarts, such as `1.0`. Only this module reads a name. The server compares names and stores them.
`optimizer` decides what follows for a run.
"""

import os
from pathlib import Path

_PROC = Path("/proc")
_RESTART_VARIABLES = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
_DEAD_STATES = ("Z", "X")  # a zombie has ended, although its parent has not noticed


def this_process() -> str | None:
    """Return the name of this process. None: the system does not tell, because it is not Linux."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").stat().st_ino
        pid = (_PROC / "self").readlink().name
    except OSError:
        return None
    start = _start(pid)
    return None if start is None else f"{boot}/{namespace}/{pid}/{start}/{_restarts()}"


def still_runs(process: str, *, has_lease: bool) -> bool:
    """Return whether a process still runs, as far as this process can tell.

    Of a process on another machine or in another container, only the scheduler and the lease tell. If the scheduler has
    restarted the job since, the process has ended.

    Args:
        process: the name of another process.
        has_lease: whether the lease of the trial that the process trains has not expired.
    """
    own = this_process()
    try:
        place, pid, start, restarts = process.rsplit("/", 3)
        counts = _counts(restarts)
    except ValueError:  # the name of another program
        return has_lease
    if own is not None and own.rsplit("/", 3)[0] == place:
        return _start(pid) == start
    return has_lease and counts >= _counts(_restarts())


def _start(pid: str) -> str | None:
    """Return when a process started, in clock ticks since the boot. None: the process has ended."""
    try:
        stat = (_PROC / pid / "stat").read_text()
    except OSError:
        return None
    # The second field is the program's name, which may hold spaces and brackets. The state is the third.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in _DEAD_STATES else fields[19]


def _restarts() -> str:
    counts = (os.environ.get(name, "") for name in _RESTART_VARIABLES)
    return ".".join(count if count.isdecimal() else "0" for count in counts)


def _counts(restarts: str) -> list[int]:
    return [int(count) for count in restarts.split(".")]
