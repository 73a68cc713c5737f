"""Files that the stages read and write: atomic JSON and JSONL, paths of results, manifests."""
