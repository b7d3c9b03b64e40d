"""Who may do what: tokens, their roles, and the guard that every request passes. Part of the API alone."""

from service.access.guard import Guard
from service.access.principal import ANYBODY, Principal, identify

__all__ = ["ANYBODY", "Guard", "Principal", "identify"]
