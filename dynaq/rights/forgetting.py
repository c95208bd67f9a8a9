"""Erasure of one applicant from run folders and folders of pre-trained networks.

A block's checkpoint holds several agents, so it is written anew without the one: the others go on to the bit as they
would have. Every step leaves a folder that can be used, and repeating the call after an interruption finishes it:

    1. what is made from the tables (report, TensorBoard's files) is deleted; it can be made again
    2. each block gets a new checkpoint folder, and the file that points to it is replaced
    3. `serving.json` names the new folders; a service that still has the old places finds no file there, never
       another applicant's row
    4. old checkpoint folders are deleted
    5. tables, cohort and all other files lose the applicant
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynaq.agent.checkpoint import without_agent
from dynaq.errors import DynaqError, InputError
from dynaq.judging.ledger_file import LEDGER
from dynaq.rights.traces import CHECKPOINT, NETWORKS, POINTER, holds, traces, written
from dynaq.runs.folder import (
    COHORT_BLOCKS,
    CONFIG,
    METRICS,
    RECOMMENDATIONS,
    REPORT,
    RunFolder,
    cohort_digest,
    read_blocks,
)
from dynaq.runs.q_table import AGENTS, Q_COLUMNS, Q_VALUES, SERVING, replace_blocks, write_q_values

EVENT_FILES = "events.out.tfevents"
NAMELESS = "forgotten"  # takes the place of the id in files that are not ours, such as Ray Tune's


@dataclass
class Erased:
    """What was done in a folder.

    Args:
        runs: URIs of the run folders that held the applicant, those of a comparison's trials included.
        reports: those of them that had a report, which was deleted.
        networks: URIs of folders of networks that learned from judgements of people who were forgotten since.
        ledgers: recorded judgements of other origin (`--judge ledger:FILE`) that runs learned from; not touched.
        unresumable: run folders that cannot be resumed any more.
    """

    runs: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    ledgers: list[str] = field(default_factory=list)
    unresumable: list[str] = field(default_factory=list)

    def __iadd__(self, other: Erased) -> Erased:
        for name, values in vars(other).items():
            getattr(self, name).extend(value for value in values if value not in getattr(self, name))
        return self


def forget_in_folder(uri: str, applicant_id: str) -> Erased:
    """Erase an applicant from a folder: a run, a comparison, networks, or a folder of any of these.

    No run may be training into it. Raises DynaqError naming the files that still hold the applicant, if any.
    """
    folder = RunFolder.at(uri)
    found = Erased()
    for one in sorted(runs_in([uri]), key=lambda run: -len(run.uri)):  # trials before their comparison
        found += _forget_in_run(one, applicant_id)
    for networks, record in networks_in([uri]):
        if applicant_id in record["applicants"]:
            record["applicants"].remove(applicant_id)
            record["forgotten"] = record.get("forgotten", 0) + 1
            networks.write_json(NETWORKS, record)
        if record.get("forgotten"):
            found.networks.append(networks.uri)
    _forget_in_other_files(folder, applicant_id)
    if left := traces(folder, applicant_id):
        raise DynaqError(
            f"{folder.uri!r} still names the applicant in {', '.join(left[:5])}; is a run training into it? "
            "End it and repeat the command"
        )
    return found


def _parents(folder: RunFolder, files: set[str]) -> list[str]:
    """Folders, relative to this one, that hold a file of these names; "" is the folder itself."""
    found = (PurePosixPath(name) for name in folder.files())
    parents = {str(path.parent) for path in found if path.name in files}
    return sorted("" if parent == "." else parent for parent in parents)


def _forget_in_run(folder: RunFolder, applicant_id: str) -> Erased:
    """Erase from one run folder, without the run folders inside it."""
    inner = [name for name in _parents(folder, {CONFIG, SERVING}) if name]
    own = [name for name in folder.files() if not any(name.startswith(f"{one}/") for one in inner)]
    if not any(holds(folder, name, applicant_id) for name in own):
        return Erased()
    config = folder.read_yaml(CONFIG) if folder.exists(CONFIG) else {}
    blocks = _blocks(folder, config, inner)
    for name in own:
        if name == REPORT or ".partial" in name or PurePosixPath(name).name.startswith(EVENT_FILES):
            folder.remove_file(name)
    newest = {block: _forget_in_block(folder, place, applicant_id) for block, place in _checkpoints(folder).items()}
    if folder.exists(SERVING):
        named = [_block_of(one["folder"]) for one in folder.read_json(SERVING)["blocks"]]
        replace_blocks(folder, [place for block in named if (place := newest.get(block))])
    for name in _unpointed(folder):
        folder.remove(name)
    for name in own:
        table_name, _, _ = name.partition(".parquet/")  # of a part of a large run's table
        if name.endswith(".parquet") and "/" not in table_name:
            table = folder.read_table(name)
            if (kept := _without(table, applicant_id)).num_rows < table.num_rows:
                folder.write_table(name, kept)
    _forget_in_cohort(folder, config, blocks, applicant_id)
    judge, finished = str(config.get("judge") or ""), folder.exists(RECOMMENDATIONS) or "best" in config
    return Erased(
        runs=[folder.uri],
        reports=[folder.uri] if REPORT in own else [],
        ledgers=[judge.removeprefix(LEDGER)] if judge.startswith(LEDGER) else [],
        unresumable=[folder.uri] if "cohort" in config and not blocks and not finished else [],
    )


def _without(table: pa.Table, applicant_id: str) -> pa.Table:
    if "applicant_id" not in table.column_names:
        return table
    return table.filter(pc.not_equal(table["applicant_id"], applicant_id))


def _blocks(folder: RunFolder, config: dict[str, Any], trials: Sequence[str]) -> dict[str, list[str]]:
    """Block number -> its applicants. Empty if not known: of an unfinished run of an earlier version."""
    if trials:  # of a comparison, whose trials have one cohort; they have lost the applicant already
        return next(filter(None, (read_blocks(RunFolder.at(folder.child(name).uri)) for name in trials)), {})
    if blocks := read_blocks(folder):
        return blocks
    for block, place in _checkpoints(folder).items():
        if folder.exists(f"{place}/{CHECKPOINT}"):
            blocks[str(int(block[-5:]))] = folder.read_json(f"{place}/{CHECKPOINT}")["applicant_ids"]
    return blocks if cohort_digest(_members(blocks)) == config.get("cohort") else {}


def _members(blocks: Mapping[str, Sequence[str]]) -> list[str]:
    return [one for ids in blocks.values() for one in ids]


def _forget_in_cohort(
    folder: RunFolder, config: dict[str, Any], blocks: Mapping[str, Sequence[str]], applicant_id: str
) -> None:
    """Take the applicant out of the recorded cohort, so that the run can be resumed, without them."""
    if not blocks or "cohort" not in config:
        return
    left = {index: [one for one in ids if one != applicant_id] for index, ids in blocks.items()}
    left = {index: ids for index, ids in left.items() if ids}
    cohort = _members(left)
    folder.write_yaml(CONFIG, config | {"applicants": len(cohort), "cohort": cohort_digest(cohort)})
    if folder.exists("agents"):
        folder.write_json(COHORT_BLOCKS, left)  # last: until here a repeated call finds what is left to do


def _checkpoints(folder: RunFolder) -> dict[str, str]:
    """Block, as `agents/block_00000` -> its newest checkpoint folder, relative to the run folder."""
    found = {}
    for name in folder.names("agents"):
        if POINTER.fullmatch(name):
            block, record = f"agents/{name.removesuffix('.json')}", folder.read_json(f"agents/{name}")
            found[block] = record.get("checkpoint") or f"{block}-{record['round']:04d}"
    if not found and folder.exists(SERVING):  # only what is served from
        found = {_block_of(one["folder"]): str(one["folder"]) for one in folder.read_json(SERVING)["blocks"]}
    return found


def _block_of(place: str) -> str:
    return place[: len("agents/block_00000")]


def _unpointed(folder: RunFolder) -> list[str]:
    """Checkpoint folders that are not the newest of any block: old ones, and what an interruption left."""
    used = set(_checkpoints(folder).values())
    places = {"/".join(PurePosixPath(name).parts[:2]) for name in folder.files() if name.startswith("agents/block_")}
    return sorted(place for place in places if not place.endswith(".json") and place not in used)


def _forget_in_block(folder: RunFolder, place: str, applicant_id: str) -> str | None:
    """Write a block's checkpoint anew without the applicant, and point to it. Returns the newest checkpoint's folder.

    None for a block that held nobody else, which is deleted.
    """
    listed = f"{place}/{CHECKPOINT}", "applicant_ids"
    if not folder.exists(listed[0]):
        listed = f"{place}/{AGENTS}", "applicants"
    applicants = folder.read_json(listed[0])[listed[1]]
    if applicant_id not in applicants:
        return place
    pointer = f"{_block_of(place)}.json"
    pointed = folder.exists(pointer)
    if applicants == [applicant_id]:
        if pointed:
            folder.remove_file(pointer)
        return None
    base, _, count = place.partition("~")
    new = f"{base}~{int(count or 0) + 1}"
    with folder.as_local(place) as old, folder.new_folder(new) as path:
        _copy_block(old, path, applicant_id)
    if pointed:
        record = folder.read_json(pointer)
        record["failures"].pop(applicant_id, None)
        record["judgements"] = _spent(folder.read_table(f"{new}/{METRICS}"))
        folder.write_json(pointer, record | {"checkpoint": new})
    return new


def _copy_block(old: Path, new: Path, applicant_id: str) -> None:
    for file in old.iterdir():
        if file.name in (METRICS, RECOMMENDATIONS):
            pq.write_table(_without(pq.read_table(file), applicant_id), new / file.name)
        elif file.suffix == ".parquet":  # about the block as a whole
            (new / file.name).write_bytes(file.read_bytes())
    if (old / CHECKPOINT).exists():
        without_agent(old, new, applicant_id)
    if (old / AGENTS).exists():
        rows = json.loads((old / AGENTS).read_text())["applicants"]
        kept = [i for i, one in enumerate(rows) if one != applicant_id]
        values = np.load(old / Q_VALUES, allow_pickle=False)
        columns = np.load(old / Q_COLUMNS, allow_pickle=False)[kept] if (old / Q_COLUMNS).exists() else None
        write_q_values(new, [rows[i] for i in kept], values[kept], columns)


def _spent(metrics: pa.Table) -> int:
    if not metrics.num_rows:
        return 0
    used = metrics.group_by("applicant_id").aggregate([("judgements_used", "max")])
    return int(pc.sum(used["judgements_used_max"]).as_py())


def _forget_in_other_files(folder: RunFolder, applicant_id: str) -> None:
    """Overwrite the id in files that are not ours, such as Ray Tune's records.

    Pickles cannot be edited safely and are deleted; without them Tune begins its trials anew, which go on from their
    run folders.
    """
    for name in traces(folder, applicant_id):
        if name.endswith((".pkl", ".pickle")):
            folder.remove_file(name)
        elif not name.endswith(".parquet"):
            folder.write_bytes(name, written(applicant_id).sub(NAMELESS.encode(), folder.read_bytes(name)))


def runs_in(folders: Sequence[str]) -> Iterator[RunFolder]:
    """All run folders in some folders, those of trials included."""
    return _folders_with({CONFIG, SERVING}, folders)


def networks_in(folders: Sequence[str]) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
    """All folders of pre-trained networks in some folders, and their records."""
    for folder in _folders_with({NETWORKS}, folders):
        yield folder, folder.read_json(NETWORKS)


def _folders_with(files: set[str], folders: Sequence[str]) -> Iterator[RunFolder]:
    for uri in folders:
        folder = RunFolder.at(uri)
        if not folder.exists():
            raise InputError(f"folder {uri!r} does not exist; name run folders, or a folder that holds them")
        for name in _parents(folder, files):
            yield folder if name == "" else RunFolder.at(folder.child(name).uri)
