"""The failures that a user sees. Each message says what is wrong, with which input, and what to do."""


class DynaqError(Exception):
    """A failure while working; the command line exits with 1."""


class InputError(DynaqError):
    """Wrong usage or bad input, found before or while reading it; the command line exits with 2."""


class JudgeError(DynaqError):
    """A judge could not answer. This is never turned into a reward."""
