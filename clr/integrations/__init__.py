"""The range test on what another framework holds: ``clr.integrations.lightning``, ``clr.integrations.transformers``.

Owns the way from a framework's own objects to a ``clr.Task`` and back to its scheduler. Each module imports its
framework, which must be installed (``pip install clr[lightning]``, ``clr[transformers]``); nothing else in ``clr``
imports these modules.
"""
