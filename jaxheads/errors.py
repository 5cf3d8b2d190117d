"""The one error type whose message is written for the person at the terminal."""


class UserError(ValueError):
    """A mistake that the user can mend: what was expected, what came, what to do.

    The command line prints the message alone and ends with exit code 2; in Python
    it is an ordinary ``ValueError``.
    """
