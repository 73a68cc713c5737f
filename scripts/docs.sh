#!/usr/bin/env bash
# Builds the documentation into runs/docs: open runs/docs/index.html. Pages and search work from disk, without a server or
# a network.
#   bash scripts/docs.sh
# Exit code 1: a page, heading, file or image that one of its pages links to is not there; page and link are named. External
# addresses are not checked. The builder (requirements-docs.txt) is put into .venv the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh --no-train --docs
made=runs/docs.$$ # another build may run at the same time
trap 'rm -rf "$made"' EXIT
.venv/bin/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going -c docs . "$made"
echo '<meta http-equiv="refresh" content="0; url=docs/index.html">' >"$made/index.html"
rm -rf runs/docs
mv -T "$made" runs/docs
echo "docs.sh: runs/docs/index.html"
