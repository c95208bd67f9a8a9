"""Where an applicant's id still stands in a folder of runs, inside its files and not only in their plain bytes.

Files that this project writes are read by their structure, since an applicant may have the id of a job or the number of
a block. Anything else, such as Ray Tune's records, is searched as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dynaq.evaluation.comparison import COMPARISON
from dynaq.runs.folder import BILLS, COHORT_BLOCKS, CONFIG, COSTS, RunFolder
from dynaq.runs.q_table import AGENTS, SERVING
from dynaq.stores.segments import STORE_FILE

CHECKPOINT = "block.json"  # of a block of agents; written by dynaq.agent.checkpoint
NETWORKS = "pretrained.json"  # written by dynaq.pretraining.prior
MIN_ID = 4  # shorter ids, and numbers, are looked for in other files only in quotes
_STRUCTURED = {
    SERVING,
    AGENTS,
    NETWORKS,
    COMPARISON,
    COSTS,
    CHECKPOINT,
    BILLS,
    PurePosixPath(COHORT_BLOCKS).name,
}
POINTER = re.compile(r"block_\d{5}\.json")
_PARTIAL = re.compile(r"\.\w{8}\.partial$")  # of a file that was being written (`RunFolder.write_bytes`)


def traces(folder: RunFolder, applicant_id: str) -> list[str]:
    """Names of the files in a folder, and below it, that name the applicant; those of stores are left to the store."""
    names = folder.files()
    stores = tuple(name.removesuffix(STORE_FILE) for name in names if PurePosixPath(name).name == STORE_FILE)
    return [name for name in names if not name.startswith(stores) and holds(folder, name, applicant_id)]


def holds(folder: RunFolder, name: str, applicant_id: str) -> bool:
    """Whether a file names the applicant."""
    path = PurePosixPath(_PARTIAL.sub("", name))
    if path.name == CONFIG or path.suffix in (".safetensors", ".npy"):  # settings; numbers under names that are ours
        return False
    data = folder.read_bytes(name)
    try:
        if path.suffix == ".parquet":
            return _table_holds(pq.read_table(pa.BufferReader(data)), applicant_id)
        if path.name in _STRUCTURED or POINTER.fullmatch(path.name):
            return applicant_id in _ids(json.loads(data), path.name == PurePosixPath(COHORT_BLOCKS).name)
    except (pa.ArrowException, ValueError):  # torn by an interruption: it may hold anything
        return True
    if path.suffix in (".pkl", ".pickle"):
        return pickled(applicant_id) in data
    return written(applicant_id).search(data) is not None


def written(applicant_id: str) -> re.Pattern[bytes]:
    """The id in text: where it is not part of a longer one, and if it could be any number or word, in quotes."""
    text = re.escape(applicant_id.encode("utf-8", "surrogatepass"))
    if len(applicant_id) < MIN_ID or applicant_id.isdecimal():
        return re.compile(rb'(?<=")' + text + rb'(?=\\*")')
    return re.compile(rb"(?<![\w-])" + text + rb"(?![\w-])")


def pickled(applicant_id: str) -> bytes:
    """The id as the pickle protocols 4 and 5 write it: SHORT_BINUNICODE or BINUNICODE, its length, the text."""
    text = applicant_id.encode("utf-8", "surrogatepass")
    return b"\x8c" + bytes([len(text)]) + text if len(text) < 256 else b"X" + len(text).to_bytes(4, "little") + text


def _table_holds(table: pa.Table, applicant_id: str) -> bool:
    if "applicant_id" not in table.column_names:
        return False
    return bool(pc.any(pc.equal(table["applicant_id"], applicant_id)).as_py())


def _ids(content: Any, listed: bool = False) -> Iterator[str]:
    """Applicants' ids in a structure of ours: members of lists of applicants, keys of `failures`.

    listed: whether every list is one of applicants.
    """
    if isinstance(content, dict):
        for key, value in content.items():
            if key == "failures" and isinstance(value, dict):
                yield from value
            yield from _ids(value, listed or key in ("applicants", "applicant_ids"))
    elif isinstance(content, list):
        for value in content:
            if listed and isinstance(value, str):
                yield value
            yield from _ids(value, listed)
