"""What an application made in the tests' own process does to the logs, undone."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from structlog.stdlib import ProcessorFormatter


@contextmanager
def put_back() -> Iterator[None]:
    """Leave the root logger as it was; else no later test sees a log that is below the application's level."""
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
            root.addHandler(handler)  # which does nothing to one that is there
