"""Each headline figure as one command, other tools in the same run. See README.md here.

Owns the tasks that are measured, the other tools, and the measuring. Imports ``clr``; nothing imports it.
"""
