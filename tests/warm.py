"""Starts `python -m backend` and `python -m gunicorn` without the second of CPU that their imports cost each time.

A process that has imported them already forks, and the fork runs the module. Apart from that it is as if Python had
started anew: it has a session, a folder, an environment, arguments, output and an exit status of its own. What a module
reads from the environment as it is imported is the exception: who changes that has to start Python cold.
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
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TextIO

IMPORTED = (
    *("backend.cli", "flask_migrate.cli", "flask_openapi3_swagger", "flask_sqlalchemy.cli"),
    *("sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.mysql.pymysql", "gunicorn.app.wsgiapp"),
)
ENDS_WITHIN_S = 10
_LARGEST_ORDER = 1 << 17


class Process:
    """A process started warm; as much of `subprocess.Popen` as the tests use."""

    def __init__(self, status: Connection, stdout: TextIO | None) -> None:
        self._status = status
        self.stdout = stdout
        self.returncode: int | None = None
        self.pid: int = status.recv()

    def poll(self) -> int | None:
        """Its exit status if it has ended."""
        return self.wait() if self.returncode is not None or self._status.poll() else None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Returns its exit status, for a signal the negative number."""
        if self.returncode is None:
            if not self._status.poll(timeout):
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            self.returncode = self._status.recv()
        return self.returncode

    def send_signal(self, which: signal.Signals) -> None:
        """Send it a signal if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, which)


def start(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdout: TextIO | None, stderr: TextIO
) -> Process:
    """Start `python -m …` in a session of its own; without a file for its output, that can be read from a pipe.

    Args:
        arguments: the module, `backend` or `gunicorn`, and what follows it.
        cwd: the folder that it runs in.
        env: its whole environment.
        stdout: where its standard output goes.
        stderr: where its standard error goes.
    """
    read, written = (None, os.dup(stdout.fileno())) if stdout else os.pipe()
    status, theirs = Pipe()
    order = json.dumps([arguments, str(cwd), dict(env)]).encode()
    socket.send_fds(_python(), [order], [theirs.fileno(), written, stderr.fileno()])
    theirs.close()
    os.close(written)
    return Process(status, None if read is None else os.fdopen(read))


@cache
def _python() -> socket.socket:
    """Where a Python that has the modules takes orders; it ends with this process."""
    orders, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        python = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", str(theirs.fileno())],
            cwd=Path(__file__).resolve().parent.parent,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )

    @atexit.register
    def end() -> None:
        orders.close()
        python.wait(ENDS_WITHIN_S)

    return orders


def _serve(orders: socket.socket) -> None:
    """Take orders until there are no more; a fork carries out each."""
    for module in IMPORTED:
        importlib.import_module(module)
    gc.freeze()  # else each fork looks through all modules once more as it ends
    while True:
        order, handles, *_ = socket.recv_fds(orders, _LARGEST_ORDER, 3)
        if not order:
            break
        if os.fork() == 0:
            orders.close()
            _carry_out(*json.loads(order), *handles)
            return
        for handle in handles:
            os.close(handle)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _carry_out(
    arguments: Sequence[str], folder: str, variables: Mapping[str, str], handle: int, out: int, err: int
) -> None:
    """Run a module in a fork, and tell over a connection the fork's process id and, in the end, its exit status."""
    status = Connection(handle)
    if pid := os.fork():
        os.close(out)
        os.close(err)
        _, how = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            status.send(os.waitstatus_to_exitcode(how))
        os._exit(0)
    os.setsid()
    status.send(os.getpid())
    status.close()
    for given, standard in ((out, 1), (err, 2)):
        os.dup2(given, standard)
        os.close(given)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[0] = folder
    sys.argv[:] = arguments
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
