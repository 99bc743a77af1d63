"""The simulator around `core.simulate`: where trainings come from, many seeds at once, and what is shown of them.

`traces`, `recorded` (both read `tables`) and `synthetic` make workloads, `study` plays policies on them, `report` shows
the outcome, and `cli` is the command.
"""
