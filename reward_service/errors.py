"""Failures of a judge that callers tell apart."""

from dynaq.errors import JudgeError


class _Temporary(JudgeError):
    """A caller may retry after about `retry_after` seconds, as the clients of this package do with growing pauses."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class JudgeBusy(_Temporary):
    """The judge's queue is full, or its rate limit is reached."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)


class JudgeUnavailable(_Temporary):
    """No replica of the judge is up: it is starting, or it died and is being replaced."""


class MethodUnsupported(JudgeError):
    """The server answers, but not with what the method needs. Asking again does not help."""


class CostLimit(JudgeError):
    """The next pair would cost more than is left of `max_cost`, so it was not asked."""
