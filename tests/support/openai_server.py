"""A small HTTP server that answers as OpenAI-compatible servers of several kinds do, with what goes wrong on demand.

It has no model: the letter B gets `LETTER_P`'s share, and every token of a prompt log-probability -1, or -0.5 after
the first mention of Java. What the kinds differ in follows their sources and issue threads:

    vllm       top_logprobs up to 20, echo with text_offset
    sglang     the same, but every text_offset is -1, and a start token precedes the prompt
    llama.cpp  top_logprobs, but echo is ignored: only the generated token, in the form of chat completions
    ollama     top_logprobs; unknown fields such as `n` are ignored
    plain      hosted, without log-probabilities: ignores the fields, answers null
    strict     hosted, without log-probabilities: refuses the fields with 400, and `n` and `max_tokens` too
    five       refuses more than five top_logprobs
    thinking   a model whose first token is never a letter
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LETTER_P = {"A": 0.2, "B": 0.6, "C": 0.1, "D": 0.05}
Answer = tuple[int, dict[str, str], Any]  # status, headers, body


@dataclass
class Server:
    """url: base URL. requests: bodies of the paid requests, in order. interrupt: answers in place of the model."""

    kind: str
    url: str = ""
    models: tuple[str, ...] = ("small",)
    usage: bool = True
    tokens_per_character: float = 0.25
    answers: tuple[str, ...] = ("B", "A", "B)", "**B**", "no idea")
    interrupt: Callable[[int], Answer | None] = lambda n: None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    drawn: int = 0

    @property
    def tokens_in(self) -> int:
        """Prompt tokens of all requests that were answered."""
        return sum(body["_tokens"] for body in self.requests if "_tokens" in body)

    def answer(self, path: str, body: dict[str, Any]) -> Answer:
        with self.lock:
            self.requests.append(body)
            number = len(self.requests)
        if (instead := self.interrupt(number)) is not None:
            return instead
        chat = path.endswith("/chat/completions")
        found = self._chat(body) if chat else self._completion(body)
        if isinstance(found, str):
            return 400, {}, {"error": {"message": found, "type": "invalid_request_error"}}
        characters = sum(len(m["content"]) for m in body["messages"]) if chat else len(body["prompt"])
        body["_tokens"] = math.ceil(characters * self.tokens_per_character)
        usage = {"prompt_tokens": body["_tokens"], "completion_tokens": len(found)}
        return 200, {}, {"choices": found} | ({"usage": usage} if self.usage else {})

    def _chat(self, body: dict[str, Any]) -> list[dict[str, Any]] | str:
        top = body.get("top_logprobs", 0)
        if self.kind == "strict":
            for name in ("logprobs", "max_tokens", "n"):
                if name in body:
                    return f"Unsupported parameter: '{name}' is not supported with this model."
        if self.kind == "five" and top > 5:
            return "top_logprobs must be at most 5"
        n = body.get("n", 1) if self.kind in ("vllm", "sglang") else 1
        choices = []
        for index in range(n):
            with self.lock:
                text = self.answers[self.drawn % len(self.answers)] if body["temperature"] else "B"
                self.drawn += bool(body["temperature"])
            choices.append({"index": index, "message": {"role": "assistant", "content": text}, "logprobs": None})
        if body.get("logprobs") and self.kind != "plain":
            head = "<think>" if self.kind == "thinking" else "Yes"
            rows = {head: 0.05, **({} if self.kind == "thinking" else LETTER_P), "No": 0.01, "The": 0.001}
            listed = sorted(rows.items(), key=lambda row: -row[1])[:top]
            entries = [{"token": token, "logprob": math.log(p)} for token, p in listed]
            choices[0]["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
        return choices

    def _completion(self, body: dict[str, Any]) -> list[dict[str, Any]] | str:
        if self.kind not in ("vllm", "sglang"):
            generated = {"content": [{"token": " a", "logprob": -1.0}]} if self.kind != "plain" else None
            return [{"text": " a", "logprobs": generated}]
        pieces = re.findall(r"\S+\s*|\s+", body["prompt"])
        knows = "Java" in body["prompt"]
        offsets = [sum(map(len, pieces[:i])) for i in range(len(pieces))]
        values: list[float | None] = [None, *[-0.5 if knows else -1.0] * (len(pieces) - 1)]
        if self.kind == "sglang":
            pieces, offsets, values = ["<s>", *pieces], [-1] * (len(pieces) + 1), [None, *values]
        tokens = [*pieces, " a"]
        logprobs = {"tokens": tokens, "token_logprobs": [*values, -2.0], "text_offset": [*offsets, len(body["prompt"])]}
        if self.kind == "sglang":
            logprobs["text_offset"] = [-1] * len(tokens)
        return [{"text": body["prompt"] + " a", "logprobs": logprobs}]


@contextmanager
def openai_server(kind: str, **settings: Any) -> Iterator[Server]:
    """A server of this kind on a free loopback port."""
    server = Server(kind, **settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            listed = self.path.endswith("/models") and not self.path.endswith("/v1/v1/models")
            body = {"data": [{"id": name} for name in server.models]} if listed else {"error": "no such path"}
            self._send(200 if listed else 404, {}, body)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.headers.append(dict(self.headers))
            self._send(*server.answer(self.path, body))

        def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
