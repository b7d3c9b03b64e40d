"""The service: REST API, web pages, command line, and the store that it shares with the workers."""
