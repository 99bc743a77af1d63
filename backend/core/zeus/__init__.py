"""The policy `zeus`: the published policy of You et al., NSDI 2023.

`policy` decides. `pruning` explores the batch sizes in rounds, then `thompson` samples among the survivors. `results`
summarizes ended trials for both. docs/policies.md explains the method.
"""
