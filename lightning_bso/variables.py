"""The names of the environment variables that a training reads.

They are apart from the code that reads them, so that `factory` can look whether it is on without any import.
"""

SERVER_URL = "ZEUS_BSO_SERVER_URL"
TOKEN = "ZEUS_BSO_TOKEN"  # noqa: S105 - the name of a variable
JOB = "ZEUS_BSO_JOB"
"""Start of the name of a job that describes itself."""
AUTO = "ZEUS_BSO_AUTO"
"""1: every Trainer gets the callback by itself."""
AUTO_DESCRIBE = "ZEUS_BSO_AUTO_DESCRIBE"
"""A file. The callback writes there what it would do in a fit, and ends the program before it trains."""
AUTO_INCLUDE = "ZEUS_BSO_AUTO_INCLUDE"
AUTO_EXCLUDE = "ZEUS_BSO_AUTO_EXCLUDE"
"""Patterns of the trainings that get, or do not get, the callback by itself. Commas separate them."""
