"""Structured logs on standard error: one event per line with the request's id, as text on a terminal, else as JSON.

The setup only: each module logs its own events with structlog.
"""

import logging
import sys

import structlog

# The control characters C0, DEL and C1. A terminal executes them, and a caller can put them into a path.
_ESCAPES = {code: ascii(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES_IN_TRACEBACK = {code: escape for code, escape in _ESCAPES.items() if chr(code) != "\n"}


def configure(level: str, log_format: str) -> None:
    """Send the logs of the program and its libraries to standard error.

    Args:
        level: the lowest level that is logged.
        log_format: `text`, `json`, or `auto` for text on a terminal and JSON elsewhere.
    """
    text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # No local variables in tracebacks: the database's password may be among them.
    traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    last: list[structlog.types.Processor] = (
        [
            structlog.processors.format_exc_info,
            _escape_controls,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
        if text
        else [structlog.processors.ExceptionRenderer(traceback), structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("alembic.runtime.migration").setLevel("WARNING")  # it logs an INFO line at each readiness check
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _escape_controls(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Escape control characters in texts. The renderer uses `repr` for other values, which escapes them too."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = value.translate(_ESCAPES_IN_TRACEBACK if key in ("exception", "stack") else _ESCAPES)
    return event
