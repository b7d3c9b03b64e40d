"""External jobs: a trainer of the user's own asks for the session's runs and reports them over REST.

SQL is the truth here too: any replica of the API answers any call, and rebuilds the session from what is stored.
"""
