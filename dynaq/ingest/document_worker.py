"""A process that reads documents, so that a malicious one that hangs or fills the memory does no other harm.

The parent (`DocumentWorker`) writes a path per line as JSON and gets one line back, `{"lines", "notes"}` or
`{"error"}`.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dynaq
from dynaq.errors import InputError
from dynaq.ingest.limits import DOCUMENT_MEMORY, DOCUMENT_SECONDS


class DocumentWorker:
    """Reads documents in a child process, which is restarted after it had to be killed. A context manager.

    Args:
        seconds: how long one document may take.
    """

    def __init__(self, seconds: float = DOCUMENT_SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def lines(self, path: Path) -> tuple[list[str], list[str]]:
        """(lines, notes) of a document. Raises InputError, without the path, when it cannot be read."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(str(path.resolve())).encode() + b"\n")
            process.stdin.flush()
            answer = self._answer(process)
        except (BrokenPipeError, EOFError):
            self.close()
            raise InputError("reading it took too much memory or broke the reader; save it anew or as text") from None
        except TimeoutError:
            self.close()
            raise InputError(f"reading it took longer than {self._seconds:.0f} s; save it anew or as text") from None
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["lines"], answer["notes"]

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any]:
        assert process.stdout is not None
        seconds = self._seconds + 10  # the first answer includes the start of Python
        received = b""
        descriptor = process.stdout.fileno()
        while not received.endswith(b"\n"):
            if not select.select([descriptor], [], [], seconds)[0]:
                raise TimeoutError
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                raise EOFError
            received += piece
            seconds = self._seconds
        answer: dict[str, Any] = json.loads(received)
        return answer

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _start() -> subprocess.Popen[bytes]:
    package = str(Path(dynaq.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "dynaq.ingest.document_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def serve() -> None:
    """The child's loop, until its standard input ends."""
    from dynaq.ingest.document_text import document_lines

    limit = _mapped_bytes() + DOCUMENT_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for line in sys.stdin.buffer:
        answer: dict[str, Any]
        try:
            lines, notes = document_lines(Path(json.loads(line)))
            answer = {"lines": lines, "notes": notes}
        except InputError as error:
            answer = {"error": str(error)}
        except OSError as error:
            answer = {"error": f"cannot be read: {error.strerror or error}"}
        except (MemoryError, RecursionError):
            answer = {"error": "reading it took too much memory; save it anew or as text"}
        except Exception as error:  # on malicious files the parsers raise all kinds of exceptions
            answer = {"error": f"cannot be read ({type(error).__name__}); save it anew or as text"}
        output.write(json.dumps(answer).encode() + b"\n")
        output.flush()


def _mapped_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError):
        return 4 << 30


if __name__ == "__main__":
    serve()
