"""The error that a user's input causes."""


class InputError(ValueError):
    """A file, row or flag cannot be used; the message names it, what was found and what was expected, in one line."""
