"""The rate of each step: the policies, torch's schedulers of them, and whole cycles that fill a training."""
