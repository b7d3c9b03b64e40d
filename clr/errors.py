"""The errors of the method. Divergence of a training run is a result, not an error."""


class ClrError(Exception):
    """Root of every error raised by ``clr`` on purpose."""


class InvalidArgument(ClrError, ValueError):
    """An argument breaks its rule; the message names the argument, the rule and the value."""


class UnknownTask(ClrError, LookupError):
    """No task of that name is registered."""


class DataMissing(ClrError, FileNotFoundError):
    """A data set is not where it was looked for; the message says how to get it."""


class BrokenTask(ClrError):
    """A task of a user's own code cannot be made; the message says what is wrong, on one line, and where."""
