"""A job's spec, read from its row. Nothing else lives here."""

from dataclasses import fields
from functools import lru_cache

from lightning_bso.wire import RegisteredJobSpec

from ..core.state import Spec
from .models import Job

_FIELDS = {field.name for field in fields(Spec)}


def spec_of(job: Job) -> RegisteredJobSpec:
    """Return a job's spec as it was registered."""
    return RegisteredJobSpec.model_validate_json(job.spec)


def core_spec(job: Job) -> Spec:
    """Return the part of a job's spec that decisions depend on."""
    return _core_spec(job.spec)


@lru_cache(maxsize=16_384)  # a list of the admin page may show every job
def _core_spec(text: str) -> Spec:
    return to_core(RegisteredJobSpec.model_validate_json(text))


def to_core(spec: RegisteredJobSpec) -> Spec:
    """Return the part of a spec that decisions depend on."""
    values = spec.model_dump(include=_FIELDS)
    return Spec(**values | {"batch_sizes": tuple(values["batch_sizes"])})
