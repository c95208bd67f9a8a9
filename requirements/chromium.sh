#!/usr/bin/env bash
# Installs Debian's Chromium for the browser tests where that needs no question: as root, with apt.
# Anywhere else, and when it fails, those tests skip and say why. `make test` calls this, `make demo` does not.
set -uo pipefail

for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && exit 0
done
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0

echo "setup: installing chromium for the browser tests" >&2
export DEBIAN_FRONTEND=noninteractive
apt=(timeout 300 apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=15)
{ "${apt[@]}" update && "${apt[@]}" install --yes --no-install-recommends chromium; } >/dev/null 2>&1 ||
    echo "setup: chromium could not be installed; the browser tests will skip" >&2
exit 0
