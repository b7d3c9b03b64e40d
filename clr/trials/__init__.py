"""Schedules tried beside each other: the Optuna study, pruning, baselines, and fresh seeds to confirm them on."""
