"""A program of the user's own as the trainer: how it learns its run and reports, is started, followed and ended.

Owns the two files between a program and what drives it, and the processes that a program becomes.
"""
