"""Options that several commands share, so that each has one meaning and one help text."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Store = Annotated[str, typer.Option(help="folder or mongodb:// URI")]
Out = Annotated[str, typer.Option(help="run folder: a path, s3:// or gs:// URI")]
Applicant = Annotated[str, typer.Option(help="applicant id")]
Runs = Annotated[
    list[str] | None,
    typer.Option(help="run folders, comparisons, pre-trained networks, or folders of these; several may follow"),
]
Cohort = Annotated[str, typer.Option(help="all, a file with ids, or id,id")]
LayoutName = Literal["classic", "extended"]
Layout = Annotated[LayoutName | None, typer.Option(help="of the vectors; default: the store's")]

Samples = Annotated[
    int | None,
    typer.Option(help="endpoints without log-probabilities: answers drawn per question, at that many times the cost"),
]
PriceIn = Annotated[float | None, typer.Option(min=0, help="endpoints: price of a million prompt tokens")]
PriceOut = Annotated[float | None, typer.Option(min=0, help="endpoints: price of a million completion tokens")]
MaxCost = Annotated[float | None, typer.Option(help="endpoints: ask nothing more when this would be exceeded")]
Calibrate = Annotated[
    Literal["auto", "check", "off"] | None,
    typer.Option(
        help="what to do before the first round about a judge that gives all pairs one answer: auto fits its "
        "thresholds to the store, check stops, off does not look; default: auto for the packaged judge, else check"
    ),
]

Budget = Annotated[int | None, typer.Option(min=1, help="judgements per applicant")]
AgentConfig = Annotated[str | None, typer.Option(help="YAML with the agents' settings")]
PretrainedFolder = Annotated[str | None, typer.Option(help="folder that dynaq pretrain wrote")]
Gold = Annotated[
    str | None,
    typer.Option(help="hand-made labels (applicant_id, job_id, label) that tell how far the judge can be believed"),
]

ActorCpus = Annotated[float, typer.Option(min=0, help="CPUs per actor")]
ActorGpus = Annotated[float, typer.Option(min=0, help="GPUs per actor, may be a fraction")]
Address = Annotated[str | None, typer.Option(help="running Ray cluster; default: RAY_ADDRESS, else a local one")]
