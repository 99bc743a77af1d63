"""The decisions, as pure functions of plain data.

Two doors: `policies.choose` says which batch size a run gets, `policies.judge` what a report means for
it. No database, clock, logging or hidden randomness may come in here: the same state (and the same
position of the random generator) gives the same answer, with its reason in words. From the bottom up:
`state`, `cost`, `results`, then `pruning` and `thompson`, which make `zeus`; `epochs`, `epoch_cost` and `belief`, which
make `gp_ucb`; then `policies`. `stored` writes down what a policy knows, `replay` checks a job's past, and `simulate`
plays a job through.
"""
