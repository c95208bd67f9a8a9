"""File format of learned state: tensors in safetensors, the rest in JSON beside them. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dynaq.errors import InputError

VERSION = 1


def write_saved(folder: str | Path, name: str, tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> None:
    """Write `name.safetensors` and `name.json` into a folder, which is created if missing."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain: dict[str, torch.Tensor] = {}
    kept: set[int] = set()
    for key, tensor in tensors.items():  # copied only where necessary: tensors are most of a block's memory
        own = tensor.detach().cpu().contiguous()
        shared = own.untyped_storage().data_ptr() in kept or own.untyped_storage().nbytes() != own.nbytes
        plain[key] = own.clone() if shared else own
        kept.add(plain[key].untyped_storage().data_ptr())
    save_file(plain, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps({"version": VERSION, **record}, indent=1), encoding="utf-8")


def read_saved(folder: str | Path, name: str, what: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and record. Raises InputError naming `what` and the folder if unreadable or of another version."""
    folder = Path(folder)
    try:
        record: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / f"{name}.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{what} {folder} cannot be read: {error}") from error
    if record.get("version") != VERSION:
        raise InputError(f"{what} {folder} has version {record.get('version')!r}; this program reads {VERSION}")
    return tensors, record
