"""Start servers and trainings without the seconds of CPU time that their imports take.

A process that has already imported them forks, and the fork runs the module. Otherwise the fork behaves like a new
Python process, with its own session, folder, environment, arguments, output and exit status. Two exceptions: a variable
that a module reads during its import, and the plugins of installed packages, which are looked up once (`tests`). A test
that depends on one of these must start Python cold.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn, TextIO

SERVER_IMPORTS = (
    *("backend.cli", "flask_migrate.cli", "flask_openapi3_swagger", "flask_sqlalchemy.cli"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.mysql.pymysql", "sqlalchemy.dialects.postgresql.psycopg"),
    *("backend.database.postgresql", "granian._loops", "asyncio"),
)
TRAINING, CLI = "tests.lightning.training_process", "tests.lightning.cli_process"
RUN = "tests.client.run_process"
TRAINING_IMPORTS = (
    *(TRAINING, "lightning_bso.lightning.lightning_cli"),
    *("pytorch_lightning.cli", "sklearn.datasets", "sklearn.model_selection", "rich.progress", "rich.table"),
)
TORCH_IMPORTS = ("torch", "torch._dynamo", "torchmetrics", "scipy.signal")
"""What importing Lightning imports besides itself. It takes most of that time."""
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
IMPORTS = {
    "backend": SERVER_IMPORTS,
    RUN: (RUN, "zeus.device.gpu"),
    **dict.fromkeys((TRAINING, CLI, *map(str, EXAMPLES.glob("*.py"))), TRAINING_IMPORTS),
}
"""What a module or a script has imported already when it starts warm."""
END_TIMEOUT_S = 10
_MAX_REQUEST_BYTES = 1 << 17


class Process:
    """A warm-started process, with the part of `subprocess.Popen` that the tests use."""

    def __init__(self, status: Connection, stdin: TextIO | None, stdout: TextIO | None) -> None:
        self._status = status
        self.stdin = stdin
        self.stdout = stdout
        self.returncode: int | None = None
        self.pid: int = status.recv()

    def poll(self) -> int | None:
        """Return the exit status; None while the process runs."""
        return self.wait() if self.returncode is not None or self._status.poll() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end. Returns the exit status; after a signal, the negative signal number."""
        if self.returncode is None:
            if not self._status.poll(timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = self._status.recv()
            if self.stdin is not None:
                with suppress(BrokenPipeError):
                    self.stdin.close()
        return self.returncode

    def send_signal(self, which: signal.Signals) -> None:
        """Send a signal if the process still runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it may have ended since
                os.kill(self.pid, which)


def start(
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdout: TextIO | None,
    stderr: TextIO,
    pipe_stdin: bool = False,
    imports: tuple[str, ...] | None = None,
) -> Process:
    """Start a module (`python -m …`) or a script (`python ….py`) in a new process session.

    Args:
        arguments: the module or the script, and its arguments.
        cwd: the folder that the process runs in.
        env: the whole environment of the process.
        stdout: file for the standard output; None: a pipe, `Process.stdout`.
        stderr: file for the standard error.
        pipe_stdin: whether the standard input is a pipe, `Process.stdin`. Otherwise it is empty.
        imports: what the process has imported already; None: what `IMPORTS` says of the
            module or the script.
    """
    read_end, write_end = (None, os.dup(stdout.fileno())) if stdout else os.pipe()
    remote_stdin, stdin = os.pipe() if pipe_stdin else (os.open(os.devnull, os.O_RDONLY), None)
    status, remote_status = Pipe()
    request = json.dumps([arguments, str(cwd), dict(env)]).encode()
    handles = [remote_status.fileno(), remote_stdin, write_end, stderr.fileno()]
    socket.send_fds(_connect(imports or IMPORTS[arguments[0]]), [request], handles)
    remote_status.close()
    os.close(remote_stdin)
    os.close(write_end)
    return Process(
        status,
        None if stdin is None else os.fdopen(stdin, "w"),
        None if read_end is None else os.fdopen(read_end),
    )


@cache
def _connect(imports: tuple[str, ...]) -> socket.socket:
    """Start the process that imports these modules, and connect to it. It ends with this process."""
    requests, remote = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with remote:
        python = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(remote.fileno()), *imports],
            cwd=Path(__file__).resolve().parent.parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[remote.fileno()],
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        requests.close()
        python.wait(END_TIMEOUT_S)

    return requests


def _serve(requests: socket.socket, imports: Sequence[str]) -> None:
    """Import the modules, then run each request in a fork, until the connection closes."""
    for module in imports:
        importlib.import_module(module)
    gc.freeze()  # otherwise the garbage collector scans all modules in each fork
    while True:
        request, handles, *_ = socket.recv_fds(requests, _MAX_REQUEST_BYTES, 4)
        if not request:
            break
        if os.fork() == 0:
            requests.close()
            _run(*json.loads(request), *handles)
            return
        for handle in handles:
            os.close(handle)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _run(
    arguments: Sequence[str], folder: str, variables: Mapping[str, str], handle: int, *standard_streams: int
) -> None:
    """Run a module in a fork. Send the fork's process id over a connection, and its exit status at the end."""
    status = Connection(handle)
    if pid := os.fork():
        for stream in standard_streams:
            os.close(stream)
        _, wait_status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            status.send(os.waitstatus_to_exitcode(wait_status))
        os._exit(0)
    os.setsid()
    status.send(os.getpid())
    status.close()
    for number, stream in enumerate(standard_streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv[:] = arguments
    try:
        if arguments[0].endswith(".py"):
            sys.path[0] = str(Path(arguments[0]).parent)
            runpy.run_path(arguments[0], run_name="__main__")
        else:
            sys.path[0] = folder
            runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
        _end(end.code if isinstance(end.code, int | None) else 1)
    except Exception:
        sys.excepthook(*sys.exc_info())
        _end(1)
    _end(0)


def _end(status: int | None) -> NoReturn:
    """End the process as Python does, but without its last step: to destroy all modules takes half a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that are no daemons
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):  # closed, or a pipe whose reader is gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
