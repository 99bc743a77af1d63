"""Parameters that several pages read from the address or the form."""

from flask import abort, request

from lightning_bso.wire import MAX_ID_LENGTH


def job_id(name: str = "job") -> str:
    """The job's id in the address. It may belong to no job; the use cases check it."""
    return request.args.get(name, "")[: MAX_ID_LENGTH + 1]


def trial_number(text: str | None) -> int:
    """Parse a trial's number; abort with 404 if no trial can have it."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 9:
        abort(404, "there is no such trial")
    return int(text)
