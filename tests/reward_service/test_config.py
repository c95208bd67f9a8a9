"""The judge's configuration and the fingerprint that names it in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray._common.utils import import_attr
from ray.serve._private.build_app import build_app
from ray.serve.schema import ServeDeploySchema

from dynaq.errors import InputError
from dynaq.judging.history import ledger_key
from reward_service.calibration import calibrated
from reward_service.config import JudgeConfig, Thresholds


def test_the_packaged_thresholds_belong_to_the_packaged_judge() -> None:
    """Fails when a prompt or a budget changes and the thresholds are not fitted again (bench/judge.py --fit)."""
    assert JudgeConfig().calibrated
    assert not JudgeConfig(profile_tokens=50).calibrated


@pytest.mark.parametrize(
    "change",
    [
        {"method": "choice"},
        {"label_values": {"APPLY": 2.0, "SAVE": 0.5, "CLICK": 0.0, "IGNORE": -0.1}},
        {"job_tokens": 20},
        {"thresholds": {"click": 0.1, "save": 0.2, "apply": 0.3, "scale": 0.1}},
        {"method": "choice", "rotations": 4},
        {"method": "choice", "instruction": "Be strict."},
        {"model": "someone/another-model", "method": "likelihood"},
    ],
)
def test_what_changes_a_judgement_changes_the_fingerprint(change: dict[str, object]) -> None:
    known = {JudgeConfig().fingerprint, JudgeConfig(method="choice").fingerprint} if len(change) > 1 else set()
    assert JudgeConfig.load(None, **change).fingerprint not in known | {JudgeConfig().fingerprint}


def test_memory_is_in_the_fingerprint_and_told_nothing_the_key_is_that_without_it() -> None:
    plain, remembers = JudgeConfig(), JudgeConfig(memory=5)
    assert remembers.fingerprint.startswith(f"{plain.fingerprint}+memory5-")
    assert ledger_key(remembers.fingerprint, ()) == plain.fingerprint
    others = [JudgeConfig(memory=4), JudgeConfig(memory=5, history_tokens=9), JudgeConfig(memory=5, method="choice")]
    assert len({other.fingerprint for other in [remembers, *others]}) == 4
    assert JudgeConfig(history_tokens=9).fingerprint == plain.fingerprint  # nothing is remembered
    assert remembers.calibrated


def test_a_history_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="for a history"):
        JudgeConfig.load(None, method="choice", memory=20, history_tokens=600)
    with pytest.raises(InputError, match="memory"):
        JudgeConfig.load(None, memory=21)


def test_where_and_how_fast_it_runs_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    same = JudgeConfig(replicas=3, api_key="secret", max_pending_pairs=7, prefix_caching=False, kv_cache_gib=2)
    assert same.fingerprint == JudgeConfig().fingerprint


def test_a_model_folder_is_named_by_its_weights_not_its_place(tmp_path: Path) -> None:
    for place in ("a", "b"):
        folder = tmp_path / place / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
    a, b = (JudgeConfig(model=str(tmp_path / place / "model")) for place in ("a", "b"))
    assert a.fingerprint == b.fingerprint
    (tmp_path / "b" / "model" / "model.safetensors").write_bytes(b"WEIGHTS of another run")
    assert JudgeConfig(model=str(tmp_path / "b" / "model")).fingerprint != a.fingerprint
    with pytest.raises(InputError, match="does not exist"):
        _ = JudgeConfig(model=str(tmp_path / "nowhere")).fingerprint


def test_a_wrong_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "judge.yaml"
    for text, reason in (("rotations: 9", "rotations"), ("modle: x", "modle"), ("- a", "mapping"), (":\n -", "read")):
        file.write_text(text)
        with pytest.raises(InputError, match=reason):
            JudgeConfig.load(file)
    with pytest.raises(InputError, match="nowhere"):
        JudgeConfig.load(tmp_path / "nowhere.yaml")


def test_a_file_is_read_and_options_win_over_it(tmp_path: Path) -> None:
    file = tmp_path / "judge.yaml"
    file.write_text("method: choice\nrotations: 2\n")
    config = JudgeConfig.load(file, rotations=3, replicas=None)
    assert (config.method_name, config.rotations, config.replicas) == ("choice", 3, 1)


def test_the_method_follows_the_model_unless_it_is_named() -> None:
    assert JudgeConfig().method_name == "likelihood"
    assert JudgeConfig(model="someone/a-3b-instruct").method_name == "choice"
    assert JudgeConfig(model="someone/a-3b-instruct", method="likelihood").method_name == "likelihood"


def test_thresholds_of_another_scorer_do_not_count_as_calibrated() -> None:
    cut = Thresholds(click=0.1, save=0.2, apply=0.3, scale=0.1, scorer="likelihood-of-another")
    assert not calibrated(JudgeConfig(), cut).calibrated
    mine = cut.model_copy(update={"scorer": JudgeConfig().scorer})
    assert calibrated(JudgeConfig(), mine).calibrated
    assert calibrated(JudgeConfig(), mine).fingerprint != JudgeConfig().fingerprint


def test_the_public_view_holds_no_secret() -> None:
    config = JudgeConfig(
        api_key="top", endpoint="https://me:word@example.org/v1?key=hidden", model="m", store="mongodb://u:pass@h/db"
    )
    shown = str(config.public())
    for secret in ("top", "word", "hidden", "pass"):
        assert secret not in shown.replace("top_", "")
    assert "top" not in repr(config).replace("stop", "")


def test_the_serve_configuration_is_valid_and_builds_both_deployments(ray_session_fixture: None) -> None:
    """What `serve run` and `serve deploy` do with it, short of starting an engine."""
    file = Path(__file__).parents[2] / "reward_service" / "serve_config.yaml"
    schema = ServeDeploySchema.model_validate(yaml.safe_load(file.read_text()))
    [application] = schema.applications
    builder = import_attr(application.import_path)
    built = build_app(builder(application.args), name=application.name)
    assert {deployment.name for deployment in built.deployments} == {"judge", "api"}
    with pytest.raises(InputError, match="modle"):
        builder({"modle": "x"})
