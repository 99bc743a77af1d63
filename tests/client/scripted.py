"""A real HTTP server on loopback that does what a test tells it to, or hands on to a real backend."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import requests

from tests.threads import ThreadServer


@dataclass(frozen=True)
class Request:
    """What has arrived."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        """Its JSON."""
        return json.loads(self.content)


@dataclass(frozen=True)
class Reply:
    """What is to be answered; a body that is not bytes is sent as JSON.

    `pause_s`: how long to wait before each header and each byte of the body.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0

    @property
    def content(self) -> bytes:
        """The body as it is sent."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Script = Callable[[Request], Reply]

JOB_PAGE = Reply(200, {"total": 0, "jobs": []})
"""The shortest answer of the protocol: that to `GET /jobs`, when there are none."""


class ScriptedServer(ThreadServer):
    """A server as a context manager. `script` may be changed while it runs; `requests` holds what has come.

    `release` is an event for scripts that hang: it is set when the server ends.
    """

    def __init__(self, script: Script = lambda _request: JOB_PAGE) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                request = Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
                outer.requests.append(request)
                reply = outer.script(request)
                try:
                    self.send_response(reply.status)
                    for name, value in {"Content-Length": str(len(reply.content)), **reply.headers}.items():
                        self.send_header(name, value)
                        if reply.pause_s:
                            self.flush_headers()
                            outer.release.wait(reply.pause_s)
                    self.end_headers()
                    for piece in [reply.content] if not reply.pause_s else [bytes([byte]) for byte in reply.content]:
                        outer.release.wait(reply.pause_s)
                        self.wfile.write(piece)
                except ConnectionError:  # the client has given up waiting
                    self.close_connection = True

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), Handler))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        super().__exit__(kind, error, trace)

    def hang(self, _request: Request) -> Reply:
        """A script: never answer."""
        self.release.wait()
        return Reply(503)


def in_turn(*replies: Reply) -> Script:
    """A script: each of these once, then the last for ever."""
    waiting = list(replies)
    return lambda _request: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def handed_on(url: str, before: Callable[[Request], object] = lambda _request: None) -> Script:
    """A script: call `before`, then answer as the real server there does."""

    def hand_on(request: Request) -> Reply:
        before(request)
        answer = requests.request(request.method, url + request.path, data=request.content, timeout=30)
        return Reply(answer.status_code, answer.content)

    return hand_on
