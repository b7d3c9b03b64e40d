"""The errors of the store; each message states the rule, what was found, and what to do."""


class StoreError(Exception):
    """Root of every error raised by the store on purpose."""


class NotFound(StoreError):
    """Nothing of that name or number is stored."""


class NotAllowed(StoreError):
    """What was asked for is off here, or not for whom it was that asked."""


class Conflict(StoreError):
    """What was asked for does not go together with what is stored."""


class IdempotencyMismatch(Conflict):
    """An idempotency key came again with another request."""


class LimitReached(StoreError):
    """A token has all that it may have at once; later there may be room again."""


class LeaseLost(StoreError):
    """The job is no longer this worker's: stop the work, and write nothing more."""


class Busy(StoreError):
    """Others have it all the time."""
