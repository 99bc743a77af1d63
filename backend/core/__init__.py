"""The decisions, as pure functions of plain data.

`policies` holds the two entry points: `choose` picks the next run's batch size, and `judge` decides what a report means
for its run. The same job state and the same position of the random generator give the same answer, with its reason in
words. No database, clock, logging or hidden randomness may be used here.

The layout, from the bottom up:

- `state`, `cost`, `rng`: the plain data, the cost of a run, and a job's random generator.
- `zeus/` and `gp_ucb/`: one package per policy. Each has a `policy.py`, which decides.
- `policies`: the two entry points, and the list of the policies.

Around these:

- `stored`: a policy's summary of ended trials as text, and back.
- `replay`: checks that a job's stored decisions follow from its stored trials.
- `simulate`: simulates whole jobs. `baselines`: choosers to compare the policies with.
- `summary`, `savings`: figures about a job for display.
"""
