"""The service: REST API, web pages, command line, settings, and the store they share with the workers.

Must not import ``worker``, ``torch`` or ``ray``: the API process only reads and writes the store.
"""
