#!/usr/bin/env bash
# Builds the documentation into runs/docs: open runs/docs/index.html. Pages and search work from disk, without a server or
# a network.
#   bash scripts/docs.sh
# Exit code 1: a page, heading, file or image that docs/*.md, README.md or results/experiment.md links to is not there;
# page and link are named. External addresses are not checked. The builder (requirements-docs.txt) is put into .venv the
# first time.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh --no-train --docs
rm -rf runs/docs
.venv/bin/python -m sphinx --quiet --nitpicky --fail-on-warning --keep-going -c docs . runs/docs
echo '<meta http-equiv="refresh" content="0; url=docs/index.html">' >runs/docs/index.html
echo "docs.sh: runs/docs/index.html"
