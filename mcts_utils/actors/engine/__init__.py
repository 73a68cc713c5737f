"""Compute the replies of a local model: token ids in, token ids out, in processes of their own."""
