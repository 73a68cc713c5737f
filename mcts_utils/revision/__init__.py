"""Stage 2: pairs of paths, the judge, the splice, and records that are executed before they are written."""
