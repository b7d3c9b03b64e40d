"""Workers: claim jobs from the store and run each one's stages as Ray tasks.

Owns the claiming loop, the engine (Ray) and the driving of one job. Of ``service`` it may import the store, the
settings and the logs alone. Only this process talks to the store and to Optuna; Ray tasks take and yield plain values.
"""
