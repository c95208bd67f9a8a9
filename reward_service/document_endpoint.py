"""An OpenAI-compatible server that reads applicants' documents for `dynaq ingest` (`dynaq.ingest.resume_model`)."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import httpx

from dynaq.errors import InputError, JudgeError
from dynaq.ingest.resume_model import AT_ONCE, Unanswered
from dynaq.stores import mask_uri
from reward_service.config import JudgeConfig
from reward_service.costs import Costs
from reward_service.engine import PairError
from reward_service.openai_engine import OpenAIEngine, served_model
from reward_service.prompts import ChatPrompt, Segment
from reward_service.untrusted_text import neutralise

FIRST_PATIENCE = 10.0  # seconds in which a server must answer for the first time: a wrong address shows at once
RESTART_PATIENCE = 60.0  # seconds to wait for a server that has answered before: it may be busy or restarting
ANSWER_SECONDS = 180.0  # longest time for one document, waiting between retries included
ANSWER_TOKENS = 4096


class DocumentEndpoint:
    """A `ResumeModel` on a server. Its requests run in an event loop of their own.

    Args:
        url: base URL of the server, with `#MODEL` where it serves several. The key is read from $DYNAQ_ENDPOINT_KEY.

    Raises InputError when the URL is none, or when the server must be asked for its model and does not answer.
    """

    def __init__(self, url: str) -> None:
        base, _, model = url.partition("#")
        check_url(url)
        try:
            model = model or asyncio.run(served_model(base))
            config = JudgeConfig.load(endpoint=base, model=model, max_ongoing_requests=AT_ONCE)
            self._engine = OpenAIEngine(config, patience=FIRST_PATIENCE)
        except (JudgeError, httpx.InvalidURL) as error:
            raise InputError(f"--resume-endpoint: {error}") from error
        self.name = f"{model} at {mask_uri(base)}"
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="document-endpoint", daemon=True).start()

    @property
    def costs(self) -> Costs:
        """Calls and tokens so far."""
        return self._engine.bill.costs

    def ask(self, instructions: str, document: str) -> Future[str]:
        """The answer to instructions about a document; the future raises Unanswered, or JudgeError."""
        return asyncio.run_coroutine_threadsafe(self._answer(instructions, document), self._loop)

    async def _answer(self, instructions: str, document: str) -> str:
        # Neutralised text has no angle brackets, so no line of a document can end it or begin another.
        text = "\n".join(neutralise(line.replace("\t", " | ")) for line in document.split("\n"))
        prompt = ChatPrompt(instructions, (Segment(f"<document>\n{text}\n</document>"),), {})
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._engine.reply(prompt, ANSWER_TOKENS)
        except TimeoutError as error:
            raise Unanswered(f"no answer within {ANSWER_SECONDS:g} s") from error
        except PairError as error:
            raise Unanswered(str(error)) from error
        except (httpx.HTTPError, AttributeError, TypeError, ValueError) as error:
            raise Unanswered(f"an answer in no known form ({type(error).__name__})") from error
        self._engine.patience = RESTART_PATIENCE
        return answer


def check_url(url: str) -> None:
    """Raise InputError for a text that is no URL of a server."""
    if not url.startswith(("http://", "https://")):
        raise InputError(f"--resume-endpoint {mask_uri(url)!r} is no URL; expected https://host/v1#MODEL")
