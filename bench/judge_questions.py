"""What a causal language model says of every pair of applicants and jobs, by each way of asking, from its logits.

    python -m bench.judge_questions --store FOLDER [--model FOLDER] [--first 0 --applicants 24] --out FILE.npz

Every way of asking is a batch of token sequences behind a shared prefix, so that one function scores all of them, on a
CPU and on a GPU. The scores are raw; `bench.judge_ladder` makes rankings and tables of them without the model.

Saved per question, `[applicants, jobs]` in float32 unless said otherwise:

    forward_title, forward_rest      log P of the job's title and of its skills behind the profile, summed over tokens
    empty_title, empty_rest          the same behind an empty profile, `[jobs]`
    tokens_title, tokens_rest        how many tokens that were, `[jobs]`
    reverse, reverse_empty           log P of the profile behind the job, per token; behind an empty job, `[applicants]`
    yes_no, few_shot                 log-odds of "Yes" against "No", without and with four examples from the catalogue
    *_no_profile, *_no_job           the same with "N/A" in the profile's place `[jobs]` and in the job's `[applicants]`
                                     (contextual calibration, Zhao et al. 2021, arXiv 2102.09690)
    *_mass                           mean probability on the two answers, a scalar
    rating                           expected grade on a scale from 0 to 9
    choice                           log-probabilities of the four letters, `[orders, applicants, jobs, 4]`
    choice_mass                      mean probability on the letters
    setwise                          log P of a job's letter in a list of eight, against the same list without a
                                     profile, mean over random lists (after Zhuang et al. 2024, arXiv 2310.09497)
    seconds_*, joules_*              time, and energy where NVML tells it, of each question
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from dynaq.judging.judgement import LABELS
from dynaq.records import Candidate, Job
from dynaq.stores import open_store
from dynaq.tensor_cache import TensorCache
from reward_service.model import resolve_model
from reward_service.prompts import (
    LETTERS,
    MEANINGS,
    Text,
    job_text,
    likelihood_prefix,
    likelihood_suffix,
    profile_text,
    title_line,
)

Array = npt.NDArray[np.float32]

PROFILE_TOKENS, TITLE_TOKENS, JOB_TOKENS = 96, 32, 96
SYSTEM = "You are an experienced recruiter. You judge whether a job suits a person, from the person's profile."
YES_NO = "Would this person be a good match for this job? Answer Yes or No."
RATING = "How well does this job match this person, from 0 (not at all) to 9 (perfectly)? Answer with one digit."
CHOICE = "What would this person do with this job? Answer with one letter."
SETWISE = "Which of these jobs matches this person best? Answer with one letter."
LIST, ROUNDS = 8, 4
ORDERS = (0, 2)
MARK = "\0"  # where a prompt is cut into what is asked of the applicant and of the job
NOBODY = Candidate(id="nobody", bio="N/A")
CONTENT_FREE_JOB = Job(id="nothing", title="N/A", description="N/A")


class Scorer:
    """A model that scores suffixes behind a shared prefix."""

    def __init__(self, model: str, device: str, gguf: str | None = None, tokens_per_batch: int | None = None) -> None:
        dtype = torch.bfloat16 if device == "cuda" else torch.float32
        # transformers takes weights, configuration and tokenizer from a GGUF file alike.
        source: dict[str, Any] = {"gguf_file": gguf} if gguf else {}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(model, **source)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model, dtype=dtype, **source).to(device).eval()
        self._device = device
        self._tokens_per_batch = tokens_per_batch or (1 << (18 if device == "cuda" else 13))

    def offsets(self, text: str) -> Sequence[tuple[int, int]]:
        found: Sequence[tuple[int, int]] = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)[
            "offset_mapping"
        ]
        return found

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.tokenizer(text, add_special_tokens=False).input_ids
        return found

    def chat(self, user: str) -> str:
        """A user turn in the model's chat template, up to where the answer begins."""
        turns = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]
        text: str = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    @torch.inference_mode()
    def _hidden(self, prefix: list[int], rows: Sequence[list[int]]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Batches of row numbers, and the hidden states that predict each row's tokens and what follows them.

        `[rows, 1 + longest row, width]`: position i predicts token i; right padding is causal, so it changes nothing.
        """
        past, first = None, None
        if prefix:
            out = self._model.model(torch.tensor([prefix], device=self._device), use_cache=True)
            past, first = out.past_key_values, out.last_hidden_state[:, -1:]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        start = 0
        while start < len(order):
            end = start + 1
            while (
                end < len(order) and (end + 1 - start) * (len(prefix) + len(rows[order[end]])) <= self._tokens_per_batch
            ):
                end += 1
            part = order[start:end]
            longest = len(rows[part[-1]])
            ids = torch.zeros((len(part), longest), dtype=torch.long)
            for row, i in enumerate(part):
                ids[row, : len(rows[i])] = torch.tensor(rows[i])
            cache = None
            if past is not None:
                cache = DynamicCache()
                for n, layer in enumerate(past.layers):
                    cache.update(
                        layer.keys.expand(len(part), -1, -1, -1), layer.values.expand(len(part), -1, -1, -1), n
                    )
            hidden = self._model.model(ids.to(self._device), past_key_values=cache, use_cache=cache is not None)
            states = hidden.last_hidden_state
            head = first.expand(len(part), -1, -1) if first is not None else torch.zeros_like(states[:, :1])
            yield part, torch.cat([head, states], 1)
            start = end

    @torch.inference_mode()
    def text(self, prefix: list[int], rows: Sequence[list[int]]) -> list[npt.NDArray[np.float32]]:
        """Log-probability of each token of each row."""
        found: list[Any] = [None] * len(rows)
        for part, states in self._hidden(prefix, rows):
            for some in range(0, len(part), 64):  # the vocabulary is wide
                few = part[some : some + 64]
                width = max(len(rows[i]) for i in few)
                targets = torch.zeros((len(few), width), dtype=torch.long)
                for row, i in enumerate(few):
                    targets[row, : len(rows[i])] = torch.tensor(rows[i])
                logits = self._model.lm_head(states[some : some + 64, :width]).float()
                chosen = logits.gather(2, targets.to(self._device)[..., None])[..., 0] - logits.logsumexp(2)
                values = chosen.cpu().numpy()
                for row, i in enumerate(few):
                    found[i] = values[row, : len(rows[i])]
        return found

    @torch.inference_mode()
    def answer(self, prefix: list[int], rows: Sequence[list[int]], options: list[int]) -> Array:
        """Log-probability of each option as the next token, `[rows, options]`."""
        found = np.zeros((len(rows), len(options)), np.float32)
        for part, states in self._hidden(prefix, rows):
            last = states[torch.arange(len(part)), torch.tensor([len(rows[i]) for i in part])]
            logits = self._model.lm_head(last).float()
            found[part] = (logits[:, options] - logits.logsumexp(1, keepdim=True)).cpu().numpy()
        return found


class Questions:
    """All ways of asking one model about some applicants and the whole catalogue."""

    def __init__(self, scorer: Scorer, applicants: Sequence[Candidate], jobs: Sequence[Job], seed: int = 0) -> None:
        self._scorer, self._applicants, self._jobs = scorer, applicants, jobs
        self._rng = np.random.default_rng(seed)
        self.found: dict[str, npt.NDArray[Any]] = {}

    def all(self, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        for name in names:
            with self._measured(name):
                getattr(self, name)()
            print(f"{name}: {self.found[f'seconds_{name}']:.1f} s", flush=True)
        return self.found

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        began, before = time.perf_counter(), _joules()
        yield
        self.found[f"seconds_{name}"] = np.float64(time.perf_counter() - began)
        if before is not None and (after := _joules()) is not None:
            self.found[f"joules_{name}"] = np.float64(after - before)

    def forward(self) -> None:
        scorer = self._scorer
        texts = [job_text(job, TITLE_TOKENS, scorer.offsets, description=False) for job in self._jobs]
        rows = [scorer.ids(likelihood_suffix(text)) for text in texts]
        split = [len(scorer.ids(title_line(text.fields[0]))) for text in texts]

        def halves(applicant: Candidate) -> Array:
            found = scorer.text(self._likelihood_prefix(applicant), rows)
            return np.array([[x[:n].sum(), x[n:].sum()] for x, n in zip(found, split, strict=True)], np.float32)

        self.found["tokens_title"] = np.array(split)
        self.found["tokens_rest"] = np.array([len(row) - n for row, n in zip(rows, split, strict=True)])
        self.found["empty_title"], self.found["empty_rest"] = halves(NOBODY).T
        values = np.stack([halves(applicant) for applicant in self._applicants])
        self.found["forward_title"], self.found["forward_rest"] = values[..., 0], values[..., 1]

    def _likelihood_prefix(self, applicant: Candidate) -> list[int]:
        nothing = Text((), was_cut=False)
        profile = nothing if applicant is NOBODY else profile_text(applicant, PROFILE_TOKENS, self._scorer.offsets)
        return self._scorer.ids(likelihood_prefix(profile))

    def reverse(self) -> None:
        scorer = self._scorer
        rows = []
        for applicant in self._applicants:
            values = {f.label: f.text for f in profile_text(applicant, PROFILE_TOKENS, scorer.offsets).fields}
            rows.append(scorer.ids(f" {values.get('Past jobs', 'N/A')}\nSkills: {values.get('Skills', 'N/A')}\n"))
        heads = []
        for job in [CONTENT_FREE_JOB, *self._jobs]:
            text = job_text(job, TITLE_TOKENS, scorer.offsets, description=False)
            fields = "".join(f"{field.label}: {field.text}\n" for field in text.fields)
            heads.append(scorer.ids(f"{fields}Past jobs of a suitable candidate:"))
        joined = [head + row for head in heads for row in rows]
        means = []
        for n, values in enumerate(scorer.text([], joined)):
            means.append(values[len(heads[n // len(rows)]) :].mean())
        table = np.array(means, np.float32).reshape(len(heads), len(rows))
        self.found["reverse_empty"], self.found["reverse"] = table[0], table[1:].T

    def yes_no(self) -> None:
        self._log_odds("yes_no", "")

    def few_shot(self) -> None:
        """Examples from the catalogue alone: a person who held a job suits it, and hardly suits one drawn at random."""
        text = ""
        for n in range(4):
            job = self._jobs[int(self._rng.integers(len(self._jobs)))]
            other = self._jobs[int(self._rng.integers(len(self._jobs)))]
            skills = ", ".join(job.technical_skills[:4])
            shown, answer = (job, "Yes") if n % 2 == 0 else (other, "No")
            text += f"Person:\nSkills: {skills}\nPast jobs: {job.title}\n\n"
            text += f"Job:\nTitle: {shown.title}\n\nMatch: {answer}\n\n"
        self._log_odds("few_shot", f"Examples:\n\n{text}Now:\n\n")

    def _log_odds(self, name: str, examples: str) -> None:
        options = [self._scorer.ids(word)[0] for word in ("Yes", "No")]

        every, nothing = self._rows_of_jobs(self._jobs, YES_NO), self._rows_of_jobs([CONTENT_FREE_JOB], YES_NO)

        def odds(applicant: Candidate, rows: list[list[int]]) -> Array:
            return self._scorer.answer(self._prefix(examples, applicant), rows, options)

        table = np.stack([odds(applicant, every) for applicant in self._applicants])
        self.found[f"{name}_mass"] = np.exp(table).sum(-1).mean()
        self.found[name] = table[..., 0] - table[..., 1]
        nobody = odds(NOBODY, every)
        self.found[f"{name}_no_profile"] = nobody[:, 0] - nobody[:, 1]
        bare = np.concatenate([odds(applicant, nothing) for applicant in self._applicants])
        self.found[f"{name}_no_job"] = bare[:, 0] - bare[:, 1]

    def rating(self) -> None:
        options = [self._scorer.ids(str(digit))[0] for digit in range(10)]
        table = []
        rows = self._rows_of_jobs(self._jobs, RATING)
        for applicant in self._applicants:
            p = np.exp(self._scorer.answer(self._prefix("", applicant), rows, options))
            table.append(p @ np.arange(10, dtype=np.float32) / p.sum(1))
        self.found["rating"] = np.stack(table)

    def choice(self) -> None:
        options = [self._scorer.ids(letter)[0] for letter in LETTERS]
        orders, mass = [], []
        for rotation in ORDERS:
            labels = LABELS[rotation:] + LABELS[:rotation]
            lines = "\n".join(f"{a}) {b}: {MEANINGS[b]}" for a, b in zip(LETTERS, labels, strict=True))
            table = []
            rows = self._rows_of_jobs(self._jobs, f"{lines}\n{CHOICE}")
            for applicant in self._applicants:
                found = self._scorer.answer(self._prefix("", applicant), rows, options)
                mass.append(np.exp(found).sum(1).mean())
                table.append(found[:, [labels.index(label) for label in LABELS]])
            orders.append(np.stack(table))
        self.found["choice"], self.found["choice_mass"] = np.stack(orders), np.mean(mass)

    def setwise(self) -> None:
        letters = "ABCDEFGH"
        options = [self._scorer.ids(letter)[0] for letter in letters]
        n = len(self._jobs)
        lists = []
        for _ in range(ROUNDS):
            order = self._rng.permutation(n)
            lists += [np.resize(order[i : i + LIST], LIST) for i in range(0, n, LIST)]
        tails = []
        for jobs in lists:
            lines = "\n".join(f"{a}) {self._jobs[j].title}" for a, j in zip(letters, jobs, strict=True))
            tails.append(f"Jobs:\n{lines}\n\n{SETWISE}")
        rows = self._rows(tails)
        sums = np.zeros((1 + len(self._applicants), n), np.float64)
        counts = np.zeros(n)
        for a, applicant in enumerate([NOBODY, *self._applicants]):
            found = self._scorer.answer(self._prefix("", applicant), rows, options)
            for jobs, values in zip(lists, found, strict=True):
                np.add.at(sums[a], jobs, values)
                if a == 0:
                    np.add.at(counts, jobs, 1)
        table = (sums / counts).astype(np.float32)
        self.found["setwise"] = table[1:] - table[0]

    def _rows_of_jobs(self, jobs: Sequence[Job], question: str) -> list[list[int]]:
        tails = []
        for job in jobs:
            text = job_text(job, JOB_TOKENS, self._scorer.offsets, description=False)
            fields = "\n".join(f"{field.label}: {field.text}" for field in text.fields)
            tails.append(f"Job:\n{fields}\n\n{question}")
        return self._rows(tails)

    def _rows(self, tails: Sequence[str]) -> list[list[int]]:
        """What follows the profile, up to where the answer begins; the same for every applicant."""
        _, end = self._scorer.chat(MARK).split(MARK)
        return [self._scorer.ids(text + end) for text in tails]

    def _prefix(self, examples: str, applicant: Candidate) -> list[int]:
        profile = profile_text(applicant, PROFILE_TOKENS, self._scorer.offsets)
        person = "\n".join(f"{field.label}: {field.text}" for field in profile.fields)
        head, _ = self._scorer.chat(f"{examples}Person:\n{person}\n\n{MARK}").split(MARK)
        return self._scorer.ids(head)


def _joules() -> float | None:
    """Energy that the first GPU has used since its driver was loaded; None where it is not readable."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1000.0
    except Exception:  # no NVML, no GPU, or a GPU that does not count: energy is left out
        return None


DEFAULT_QUESTIONS = ("forward", "reverse", "yes_no", "few_shot", "rating", "choice", "setwise")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="an embedded market")
    parser.add_argument("--model", help="folder or hub name; default: the packaged SmolLM2-135M-Instruct")
    parser.add_argument("--gguf", help="name of the GGUF file in that folder, if its weights are one")
    parser.add_argument("--first", type=int, default=0, help="number of the first applicant")
    parser.add_argument("--applicants", type=int, default=24)
    parser.add_argument("--jobs", type=int, help="only so many jobs, for a first look")
    parser.add_argument("--questions", default=",".join(DEFAULT_QUESTIONS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with open_store(args.store, read_only=True) as store:
        cache = TensorCache.copy_from_database(store, text=True)
        qrels = store.qrels()
    assert qrels is not None
    ids = list(qrels.applicants)[args.first : args.first + args.applicants]
    people = [cache.applicant_text(cache.applicant_index(a)) for a in ids]
    jobs = [cache.job_text(n) for n in range(len(cache.job_ids))][: args.jobs]
    began = time.perf_counter()
    scorer = Scorer(resolve_model(args.model), args.device, args.gguf)
    print(f"model loaded in {time.perf_counter() - began:.1f} s", flush=True)
    found = Questions(scorer, people, jobs).all(args.questions.split(","))
    np.savez_compressed(args.out, applicants=np.array(ids), jobs=np.array([job.id for job in jobs]), **found)


if __name__ == "__main__":
    main()
