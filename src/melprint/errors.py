"""The one exception that a user is meant to read."""


class MelprintError(Exception):
    """Bad input or an unusable state: one sentence with the value and the remedy."""
