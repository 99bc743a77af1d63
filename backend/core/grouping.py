"""Groups of jobs, such as those of a team. A group is the common beginning of its jobs' ids."""

import re

_BEGINNING = re.compile(r"[^/-]*[/-]?")


def group_of(job_id: str) -> str:
    """Return the group of a job: its id up to the first `/` or `-`, which included; the whole id if it has neither."""
    match = _BEGINNING.match(job_id)
    return match[0] if match else ""
