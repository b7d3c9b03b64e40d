"""The web pages: rendered here, on the API's origin, over the API's own functions. No other host is asked.

Every page shows all it has without scripts; with them it follows its job. Knows nothing that the API does not.
"""
