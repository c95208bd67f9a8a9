"""vLLM's CPU worker, extended to score only the end of a prompt.

For prompt log-probabilities, vLLM projects every token of the prompt onto the vocabulary, request by request, and
counts each token's rank. Most of these tokens are the profile's, whose values are not needed; with the default model
that is a quarter of all work. Here a request says at which token scoring starts (`extra_args={"score_from": n}`), and
the rows of all requests of a step are projected together. vLLM's newer model runner for GPUs has this built in
(`prompt_logprob_start`), but does not run on CPU without a CPU build of Triton.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker

SCORE_FROM = "score_from"  # in extra_args: index of the first prompt token whose log-probability is wanted
LOGIT_ROWS = 256  # projected onto the vocabulary together: 50 MB in float32 with 49,152 tokens
SOFTMAX_ROWS = 32  # normalised together: 6 MB stay in the processor's cache, which takes half the time


class ScoringModelRunner(CPUModelRunner):
    """Overrides one method of vLLM's runner; what it uses of it is the same in 0.24 and 0.32."""

    def _get_prompt_logprobs_dict(
        self, hidden_states: Any, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        """Log-probabilities of prompt tokens for the requests whose prompt ends in this step."""
        finished: dict[str, LogprobsTensors | None] = {}
        rows, targets, places = list[Any](), list[Any](), list[Any]()
        for req_id in list(self.num_prompt_logprobs):
            if req_id not in num_scheduled_tokens:  # preempted during its prefill
                continue
            request: Any = self.requests[req_id]
            ids = request.prompt_token_ids
            if request.in_progress_prompt_logprobs_cpu is None:
                request.in_progress_prompt_logprobs_cpu = _empty(ids)
            tensors = request.in_progress_prompt_logprobs_cpu
            # Row i of this step's hidden states is prompt token `computed + i` and predicts the one after it.
            computed = request.num_computed_tokens
            end = min(computed + num_scheduled_tokens[req_id], len(ids) - 1)
            first = max(computed, _score_from(request) - 1)
            if first < end:
                offset = int(self.query_start_loc.np[self.input_batch.req_id_to_index[req_id]]) - computed
                rows.append(hidden_states[offset + first : offset + end])
                targets.append(torch.tensor(ids[first + 1 : end + 1]))
                places.append(tensors.logprobs[first:end, 0])
            if computed + num_scheduled_tokens[req_id] >= len(ids):
                finished[req_id] = tensors
                del self.num_prompt_logprobs[req_id]
                request.in_progress_prompt_logprobs_cpu = None
        if rows:
            values = self._logprobs_of(torch.cat(rows), torch.cat(targets))
            for place, part in zip(places, values.split([len(place) for place in places]), strict=True):
                place.copy_(part)
        return finished

    def _logprobs_of(self, hidden: Any, tokens: Any) -> Any:
        """log p of each row's next token, `[rows]`."""
        model: Any = self.model
        parts = []
        for some, wanted in zip(hidden.split(LOGIT_ROWS), tokens.split(LOGIT_ROWS), strict=True):
            logits = model.compute_logits(some)
            for rows, tokens_of in zip(logits.split(SOFTMAX_ROWS), wanted.split(SOFTMAX_ROWS), strict=True):
                parts.append(self.sampler.compute_logprobs(rows).gather(1, tokens_of[:, None]).squeeze(1))
        return torch.cat(parts)


class ScoringWorker(CPUWorker):
    """The worker that `VllmEngine` passes to vLLM as `worker_cls`."""

    def init_device(self) -> None:
        """Initialise as vLLM does, then replace the model runner by ours."""
        super().init_device()  # type: ignore[no-untyped-call]
        self.model_runner.__class__ = ScoringModelRunner  # keeps the runner's state and replaces one method


def _score_from(request: Any) -> int:
    extra = request.sampling_params.extra_args or {}
    return int(extra.get(SCORE_FROM, 1))


def _empty(ids: list[int]) -> LogprobsTensors:
    """One row per predicted token, zero until it is scored; ranks are not counted."""
    tokens = torch.tensor(ids[1:], dtype=torch.int32)[:, None]
    return LogprobsTensors(tokens, torch.zeros(tokens.shape), torch.zeros(len(tokens), dtype=torch.int32))
