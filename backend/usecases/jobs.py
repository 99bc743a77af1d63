"""The use cases that change a job as a whole: register, reset, pause and delete it. Each is one transaction.

The calls of its runs live in `runs`, the read calls in `reading`.
"""

import secrets

from lightning_bso.wire import MAX_GP_UCB_BATCH_SIZES, MAX_SEED, RegisteredJobSpec

from ..core.gp_ucb.belief import NoWarmStart, WarmStart, warm_start
from ..database import states, store
from ..database.transactions import Connection, transaction
from ..errors import InvalidField, JobSpecDiffers, TokenLacksScope
from . import audit
from .audit import Action, Actor


@transaction
def register(connection: Connection, spec: RegisteredJobSpec, *, by: Actor) -> tuple[RegisteredJobSpec, bool]:
    """Register a job. Registering the same spec again changes nothing.

    Returns:
        The spec, with a generated `job_id` if it had none, and whether the job is new.

    Raises:
        JobSpecDiffers: the id is registered with another spec.
        InvalidField: the job cannot start from the job named by `warm_start_from`.
        TokenLacksScope: the caller may not use this job_id.
    """
    if spec.job_id is None:
        spec = spec.model_copy(update={"job_id": f"{spec.job_id_prefix}-{secrets.token_hex(4)}"})
    if not by.may_see(spec.job_id or ""):
        raise TokenLacksScope(
            f"this token is limited to jobs whose job_id starts with {by.job_id_prefix!r}; rename the job"
        )
    job = store.read_job(connection, spec.job_id or "")
    if job is None:
        seed = secrets.randbelow(MAX_SEED) if spec.mab_seed is None else spec.mab_seed
        states.begin_exploration(connection, store.add_job(connection, spec, seed, _warm_start(connection, spec, by)))
        audit.record(connection, by, Action.REGISTER, spec.job_id)
        return spec, True
    registered = states.spec_of(job)
    if registered != spec:
        differing = [name for name, value in registered if value != getattr(spec, name)]
        raise JobSpecDiffers(
            f"job {spec.job_id!r} is registered with another spec; it differs in {', '.join(differing)}. "
            "Give the changed training a job_id of its own, or delete the old job"
        )
    return registered, False


@transaction
def reset(connection: Connection, job_id: str, *, by: Actor) -> None:
    """Start a new exploration of a job. The job keeps its earlier trials, but they no longer count in decisions.

    The job also forgets how much its runs take on a device at a time.

    Raises:
        UnknownJob: there is no such job.
    """
    by.check_may_see(job_id)
    with store.locked_job(connection, job_id) as (job, _):
        job.exploration += 1
        states.begin_exploration(connection, job)
        job.max_device_batch_size = None
        audit.record(connection, by, Action.RESET, job_id)


@transaction
def pause(connection: Connection, job_id: str, *, paused: bool, by: Actor) -> None:
    """Pause or resume a job. Every run of a paused job gets the default batch size, without a cost bound.

    Raises:
        UnknownJob: there is no such job.
    """
    by.check_may_see(job_id)
    with store.locked_job(connection, job_id) as (job, _):
        if job.paused != paused:
            job.paused = paused
            audit.record(connection, by, Action.PAUSE if paused else Action.RESUME, job_id)


@transaction
def delete(connection: Connection, job_id: str, *, by: Actor) -> None:
    """Delete a job with its trials and reports.

    Raises:
        UnknownJob: there is no such job.
    """
    by.check_may_see(job_id)
    with store.locked_job(connection, job_id) as (job, _):
        store.delete_job(connection, job)
        audit.record(connection, by, Action.DELETE, job_id)


def _warm_start(connection: Connection, spec: RegisteredJobSpec, by: Actor) -> WarmStart | None:
    if spec.warm_start_from is None:
        return None
    donor = store.read_job(connection, spec.warm_start_from)
    if donor is None or not by.may_see(donor.job_id):
        raise _unusable_donor(spec, "does not exist; check its id")
    donor_spec = states.spec_at(donor, donor.exploration)
    if donor_spec.target_metric is None:
        raise _unusable_donor(spec, "has not learnt its target yet")
    if len(donor_spec.batch_sizes) > MAX_GP_UCB_BATCH_SIZES:
        raise _unusable_donor(spec, f"has more than {MAX_GP_UCB_BATCH_SIZES} batch sizes, too many for a warm start")
    target = (spec.target_metric, spec.higher_is_better_metric)
    if (donor_spec.target_metric, donor_spec.higher_is_better_metric) != target:
        direction = "or above" if donor_spec.higher_is_better_metric else "or below"
        other = f"{donor_spec.target_metric:g} ({direction})"
        raise _unusable_donor(spec, f"trains to another target, {other}, which takes a different number of epochs")
    try:
        # The stored summary of another policy holds other quantities.
        read = states.read_state if donor.policy == spec.policy else states.load_full_state
        return warm_start(read(connection, donor), states.to_core(spec))
    except NoWarmStart as error:
        raise _unusable_donor(spec, f"has nothing to start from: {error}") from error


def _unusable_donor(spec: RegisteredJobSpec, why: str) -> InvalidField:
    return InvalidField("warm_start_from", f"job {spec.warm_start_from!r} {why}; name another job, or leave it out")
