"""The web pages, rendered here and served from the API's origin. No other host is asked.

Every page shows all it has without scripts; with them it follows its job.
"""
