"""A run without a framework, in its own process. It reads one line of standard input before every report.

    python -m tests.client.run_process URL JOB_AS_JSON METRIC…

It prints "trial N", and at its end "verdict REASON". If `$RUN_ID` is set, the run has this name.
"""

import json
import os
import sys

from lightning_bso import BatchSizeOptimizer
from tests.client.jobs import ScriptedMonitor

if __name__ == "__main__":
    url, job, *metrics = sys.argv[1:]
    bso = BatchSizeOptimizer(ScriptedMonitor(), url, json.loads(job), run_id=os.environ.get("RUN_ID"))
    bso.get_batch_size()
    bso.on_train_begin()
    print(f"trial {bso.trial.trial_number if bso.trial else None}", flush=True)
    for metric in metrics:
        sys.stdin.readline()
        bso.on_evaluate(float(metric))
    print(f"verdict {bso.result.reason if bso.result else None}", flush=True)
