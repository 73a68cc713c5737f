#!/usr/bin/env bash
# Makes the two environments if they are missing, then runs every check.
#   bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh --ray --dev --docs
exec bash scripts/check.sh "$@"
