"""What the calls to an endpoint cost: tokens counted, prices applied, a limit kept, the total in the run folder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from typing import Any

from dynaq.runs.folder import COSTS, RunFolder
from reward_service.config import JudgeConfig
from reward_service.errors import CostLimit

MILLION = 1_000_000
SAVE_SECONDS = 5.0  # a killed process loses the count of at most these
TOKENS_PER_CHARACTER = 0.5  # before the first answer says better; English has about 0.25


@dataclass(frozen=True)
class Costs:
    """Totals over all sessions of a run.

    Args:
        calls: HTTP requests that were answered, probes included.
        prompt_tokens, completion_tokens: as the server reports them, else estimated.
        estimated_calls: calls whose tokens are estimates: the server reported none, or its answer was lost.
        cost: in the currency of the prices; None when no call had a price.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_calls: int = 0
    cost: float | None = None

    @classmethod
    def of(cls, folder: RunFolder) -> Costs | None:
        """The totals in a run folder; None for a run without an endpoint."""
        if not folder.exists(COSTS):
            return None
        found = folder.read_json(COSTS)
        return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})


class Bill:
    """Counts one process's calls and stops before the limit. Lives in one event loop.

    folder: where the totals are kept and continued from; None keeps them in memory alone.
    """

    def __init__(self, config: JudgeConfig, folder: RunFolder | None = None, costs: Costs | None = None) -> None:
        before = Costs.of(folder) if folder is not None else None
        self.costs = _sum(before or Costs(), costs or Costs())
        self.tokens_per_character = 0.0  # the most seen: over-estimating keeps the limit
        self._config, self._folder = config, folder
        self._written = before
        self._holders, self._held = 0, 0.0  # pairs under way, and the most that they may cost
        self._freed = asyncio.Condition()
        self._saved = time.monotonic()

    def estimate(self, characters: int) -> int:
        """Tokens of a prompt, rather too many than too few."""
        return round(characters * (self.tokens_per_character or TOKENS_PER_CHARACTER)) + 1

    def price(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Price of tokens; 0 where none is known."""
        c = self._config
        return (prompt_tokens * (c.price_in or 0.0) + completion_tokens * (c.price_out or 0.0)) / MILLION

    @asynccontextmanager
    async def hold(self, amount: float) -> AsyncIterator[None]:
        """Set aside what a pair may cost while it is asked. Raises CostLimit when that is more than what is left.

        Waits for pairs under way where only their final price can tell, so the limit is neither exceeded nor
        given up early.
        """
        async with self._freed:
            await self._freed.wait_for(lambda: self._fits(amount) or not self._holders)
            if not self._fits(amount):
                self.save()
                raise CostLimit(self._limit_message())
            self._holders, self._held = self._holders + 1, self._held + amount
        try:
            yield
        finally:
            async with self._freed:
                self._holders -= 1
                self._held = self._held - amount if self._holders else 0.0
                self._freed.notify_all()

    def charge(self, characters: int, most_completion: int, usage: Mapping[str, Any] | None) -> None:
        """Count one call.

        characters: length of its prompt. most_completion: tokens that it may have generated.
        usage: what the server reports; None is counted as an estimate.
        """
        prompt, completion = ((usage or {}).get(name) for name in ("prompt_tokens", "completion_tokens"))
        estimated = 0 if isinstance(prompt, int) and prompt > 0 else 1
        if isinstance(prompt, int) and not estimated:
            self.tokens_per_character = max(self.tokens_per_character, prompt / max(1, characters))
            completion = completion if isinstance(completion, int) else most_completion
        else:
            prompt, completion = self.estimate(characters), most_completion
        cost = self.price(prompt, completion) if self._config.price_in is not None else None
        self.costs = _sum(self.costs, Costs(1, prompt, completion, estimated, cost))
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the totals into the run folder, if they have changed."""
        self._saved = time.monotonic()
        if self._folder is not None and self._written != self.costs:
            terms = {name: getattr(self._config, name) for name in ("price_in", "price_out", "max_cost")}
            self._folder.write_json(COSTS, asdict(self.costs) | terms)
            self._written = self.costs

    def _fits(self, amount: float) -> bool:
        limit = self._config.max_cost
        return limit is None or (self.costs.cost or 0.0) + self._held + amount <= limit

    def _limit_message(self) -> str:
        return (
            f"max_cost {self._config.max_cost:g} is reached: {costs_line(self.costs)}. What was paid for is in the "
            "ledger; go on with --resume and a higher --max-cost, or use a smaller --budget"
        )


def usage_line(costs: Costs, price: str = "") -> str:
    """Calls and tokens in words, with what is to be said of the `price`."""
    line = f"{costs.calls:,} calls, {costs.prompt_tokens:,} tokens in, {costs.completion_tokens:,} out{price}"
    return line + (f" ({costs.estimated_calls:,} calls estimated)" if costs.estimated_calls else "")


def costs_line(costs: Costs) -> str:
    """The totals in words."""
    return usage_line(costs, f", cost {costs.cost:.4g}" if costs.cost is not None else ", no prices given")


def _sum(a: Costs, b: Costs) -> Costs:
    cost = None if a.cost is None and b.cost is None else (a.cost or 0.0) + (b.cost or 0.0)
    return Costs(
        a.calls + b.calls,
        a.prompt_tokens + b.prompt_tokens,
        a.completion_tokens + b.completion_tokens,
        a.estimated_calls + b.estimated_calls,
        cost,
    )
