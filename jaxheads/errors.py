"""The one error type whose message is written for the person at the terminal."""


class UserError(ValueError):
    """A mistake that the user can mend: what was expected, what came, what to do.

    The command line prints the message alone and ends with exit code 2; in Python
    it is an ordinary ``ValueError``.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut if it is very long."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
