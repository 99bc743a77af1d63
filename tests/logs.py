"""Undo the log configuration of an application that a test created in its own process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.stdlib import ProcessorFormatter


@contextmanager
def restored() -> Iterator[None]:
    """Restore the root logger at the end. Otherwise later tests miss logs below the application's level."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in set(root.handlers) - set(handlers):
            if isinstance(handler.formatter, ProcessorFormatter):
                root.removeHandler(handler)
        for handler in handlers:
            root.addHandler(handler)  # no effect if the handler is still there
