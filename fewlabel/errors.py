"""The one exception that is meant for the user's eyes."""


class UserError(Exception):
    """Something only the user can put right.

    The message names the value or file, what was expected and what to do; the command line prints it
    without a traceback and exits with status 2.
    """
