"""The tests. Helpers shared by several folders: `specs`, `databases`, `servers`, `calls`."""

import functools
import importlib.metadata

# Every application and every Trainer looks for plugins among the installed packages. These do not change during a test
# run, and looking takes longer than many a test.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)
