"""Run folders for TensorBoard: `tensorboard --logdir RUN`, or a folder of runs, or that of a comparison.

During training: tags `live/…` against the whole cohort's judgements. Afterwards: `curve/…`, means over applicants
against judgements per applicant, as in the report. When no judge is asked, both are against rounds. Rewards of the
curves are the judge's; `live/strategy_reward` is what the strategy makes of them (hybrid blends, cosine asks no judge).
"""

from __future__ import annotations

import math
import tempfile
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import yaml

from dynaq.evaluation.comparison import CURVE_TITLES, run_curves
from dynaq.evaluation.intervals import Band
from dynaq.runs.folder import CONFIG, RunFolder
from dynaq.runs.judgements import Judged
from dynaq.runs.reading import Run

if TYPE_CHECKING:
    from cluster.trainer import CohortProgress

CURVES_SUFFIX = ".curves"
FLUSH_SECONDS = 5


class RunEvents:
    """Event files of one run. Local ones grow while it trains; those of a remote folder are uploaded at the end."""

    def __init__(self, folder: RunFolder, suffix: str = "") -> None:
        self._folder = folder
        self._suffix = suffix
        self._staging = None if folder.local else tempfile.TemporaryDirectory()
        self._where = folder.local or Path(self._staging.name if self._staging else "")

    @cached_property
    def _writer(self) -> Any:
        """Created at the first point, so that resuming a finished run leaves no empty file."""
        from tensorboardX import SummaryWriter

        return SummaryWriter(str(self._where), filename_suffix=self._suffix, flush_secs=FLUSH_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "_writer" in vars(self):
            self._writer.close()
        if self._staging:
            for file in self._where.iterdir():
                self._folder.write_bytes(file.name, file.read_bytes())
            self._staging.cleanup()

    def scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Add one point per name; NaN is left out."""
        for name, value in values.items():
            if not math.isnan(value):
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def text(self, name: str, text: str) -> None:
        """Add text for TensorBoard's text tab, indented so that none of it is read as Markdown."""
        self._writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))

    def progress(self, progress: CohortProgress) -> None:
        """Add the cohort's progress."""
        values = {
            "strategy_reward": progress.reward,
            "ndcg": progress.ndcg,
            "applicants_done": progress.done,
            "judgements_per_second": progress.per_second,
            **progress.learning,
        }
        self.scalars("live", values, progress.judgements or progress.round)


def write_curves(run: Run, judged: Judged) -> dict[str, Band] | None:
    """Write the learning curves of a finished run and return them; None when there are none, or they are there already.

    judged: pairs judged by the run's judge.
    """
    if not run.metrics.num_rows or any(name.endswith(CURVES_SUFFIX) for name in run.folder.names()):
        return None
    curves = run_curves(run, judged)
    with RunEvents(run.folder, CURVES_SUFFIX) as events:
        for name in CURVE_TITLES:
            if name in curves:
                for step, value in zip(curves[name].judgements, curves[name].mean, strict=True):
                    events.scalars("curve", {name: value}, round(step))
        events.text("config", yaml.safe_dump(run.folder.read_yaml(CONFIG), sort_keys=False))
    return curves
