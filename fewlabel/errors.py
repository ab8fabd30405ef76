"""The exceptions that are meant for the user's eyes."""


class UserError(Exception):
    """Something only the user can put right.

    The message names the value or file, what was expected and what to do; the command line prints it
    without a traceback and exits with status 2.
    """


class Diverged(UserError):
    """The loss or the features of a training are no finite numbers: the settings are at fault, not the machine."""
