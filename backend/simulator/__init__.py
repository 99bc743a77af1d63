"""The simulator around `backend.core.simulate`: it compares policies on many trainings and seeds.

`traces`, `recorded` (both read files with `tables`) and `synthetic` make workloads. `study` simulates policies on them,
`report` shows the results, and `cli` is the command `python -m backend simulate`.
"""
