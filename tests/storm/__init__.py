"""A storm: faults of all kinds at random from a seed, on a real service, and what must hold after them.

``python -m tests.storm --minutes 30 --seed 1 [--database postgresql]``
"""
