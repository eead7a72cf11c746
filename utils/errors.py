"""What goes wrong through a user's input."""


class InputError(ValueError):
    """Something a user gave cannot be used: one line with file, row or flag, what was found, what was expected."""
