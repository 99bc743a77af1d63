"""The policy `gp-ucb`: failure-aware GP-UCB on the logarithm of the cost.

`policy` decides. It reads `belief`, the summary of ended trials, which combines `epochs` (the epochs to the target)
and `epoch_cost` (the cost of one epoch). `gaussian` holds the algebra. docs/policies.md explains the method.
"""
