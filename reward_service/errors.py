"""Temporary failures of a judge: a caller may retry, as the clients of this package do with growing pauses."""

from dynaq.errors import JudgeError


class JudgeBusy(JudgeError):
    """The judge's queue is full; retry after about `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class JudgeUnavailable(JudgeError):
    """No replica of the judge is up: it is starting, or it died and is being replaced."""
