"""Failures of a judge that pass: the caller may ask again, and the clients here do so with growing pauses."""

from dynaq.errors import JudgeError


class JudgeBusy(JudgeError):
    """The judge's queue is full; `retry_after` seconds is a sensible wait."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class JudgeUnavailable(JudgeError):
    """No replica of the judge is up: it is starting, or it died and is being replaced."""
