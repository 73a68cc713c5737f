#!/usr/bin/env bash
# Makes the two environments if they are missing, then runs every check.
#   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh --ray --dev --docs
# The page of a run is tested in Chromium; where there is none, its tests are skipped and say so.
if ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "test.sh: installing chromium"
  timeout 300 bash -c 'apt-get -qq update && apt-get -qq install -y chromium' >/dev/null 2>&1 || echo "test.sh: it could not be installed"
fi
exec bash scripts/check.sh "$@"
