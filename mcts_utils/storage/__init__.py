"""Files that stages write and read: atomic JSON and JSONL, where results lie, manifests."""
