"""The files on disk: one typed definition of each kind, with the readers of its older versions. Pure.

A reader, a writer, a JSON Schema (storage/schema.py) and the tables of docs/file-formats.md come from each definition.
Trees, steps and tasks in memory are other classes (search/tree.py, types.py).
"""
