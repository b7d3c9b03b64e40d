"""The database: its tables, its queries and the job's state machine.

Functions take an open session and never commit: the caller opens one transaction per request or write.
"""
