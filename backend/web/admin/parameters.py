"""Parameters that several pages read from the address or the form."""

from collections.abc import Mapping

from flask import abort, request

from lightning_bso.wire import MAX_ID_LENGTH


def job_id(name: str = "job") -> str:
    """The job's id in the address. It may belong to no job; the use cases check it."""
    return request.args.get(name, "")[: MAX_ID_LENGTH + 1]


def prefix(form: Mapping[str, str]) -> str | None:
    """The prefix of job ids in a form. An empty field means all jobs. Spaces alone stay, and are refused later."""
    text = form.get("prefix", "")
    return text.strip() or text or None


def trial_number(text: str | None) -> int:
    """Parse a trial's number; abort with 404 if no trial can have it."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 9:
        abort(404, "there is no such trial")
    return int(text)


def trial_numbers(text: str) -> list[int]:
    """Find the numbers in a text such as "3, 5 8". Other words count as none."""
    words = text.replace(",", " ").split()
    return [int(word) for word in words if word.isascii() and word.isdecimal() and len(word) <= 9]
