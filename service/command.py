"""The command ``clr``, which says what to install where only the library is."""

import sys

from clr.extras import MissingExtra, require


def main() -> None:
    """Run the command line."""
    try:
        require("cli")
    except MissingExtra as error:
        sys.exit(f"error: {error}")
    from service import cli

    cli.main()
