"""The names of the environment variables that a training reads.

They are apart from the code that reads them, so that `factory` can look whether it is on without any import.
"""

SERVER_URL = "ZEUS_BSO_SERVER_URL"
"""Address of the server, such as `http://127.0.0.1:8000`."""
TOKEN = "ZEUS_BSO_TOKEN"  # noqa: S105 - the name of a variable
"""Access token for the server."""
JOB = "ZEUS_BSO_JOB"
"""Start of the name of a job that describes itself."""
AUTO = "ZEUS_BSO_AUTO"
"""1: every Trainer gets the callback by itself."""
AUTO_DESCRIBE = "ZEUS_BSO_AUTO_DESCRIBE"
"""A file. The callback writes there what it would do in a fit, and ends the program before it trains."""
AUTO_INCLUDE = "ZEUS_BSO_AUTO_INCLUDE"
"""Patterns of the start of a job's name, separated by commas. Only these trainings get the callback by itself."""
AUTO_EXCLUDE = "ZEUS_BSO_AUTO_EXCLUDE"
"""The same. These trainings do not get the callback by itself."""
