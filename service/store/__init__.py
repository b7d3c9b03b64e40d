"""The store: jobs, runs, points, events, recommendations, workers, tokens and studies in SQLite or PostgreSQL.

The lowest layer of the service, and all of it that workers know. Functions take an open session and never commit: the
caller opens one transaction per request or write. Must not import ``fastapi``, ``torch``, ``ray`` or any other module
of the service.
"""
