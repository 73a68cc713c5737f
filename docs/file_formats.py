"""Write the tables of fields in docs/file-formats.md from the definitions in mcts_utils/storage/formats/.

python docs/file_formats.py           write them
python docs/file_formats.py --check   exit code 1 if one of them is not up to date

A table stands between `<!-- fields: NAME -->` and `<!-- end -->`, where NAME is the definition's class.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from msgspec import NODEFAULT, inspect

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mcts_utils.storage import schema  # noqa: E402, F401  (it imports all definitions)
from mcts_utils.storage.formats.base import Fields  # noqa: E402

PAGE = ROOT / "docs/file-formats.md"
TABLE = re.compile(r"(<!-- fields: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
NAMES = {
    inspect.IntType: "number",
    inspect.FloatType: "number",
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.NoneType: "null",
    inspect.StructType: "object",
    inspect.DictType: "object",
    inspect.AnyType: "any",
    inspect.TupleType: "list of numbers",
}


def definitions(base: type[Fields] = Fields) -> Iterator[type[Fields]]:
    """Yield all definitions."""
    for found in base.__subclasses__():
        yield found
        yield from definitions(found)


def type_text(kind: inspect.Type, many: bool = False) -> str:
    """Return a field's type for people, such as `list of numbers`."""
    if isinstance(kind, inspect.Metadata):
        return type_text(kind.type, many)
    if isinstance(kind, inspect.ListType):
        return f"list of {type_text(kind.item_type, many=True)}"
    if isinstance(kind, inspect.UnionType):
        return " or ".join(dict.fromkeys(type_text(each, many) for each in kind.types))
    if isinstance(kind, inspect.LiteralType):
        values = kind.values if all(isinstance(value, int) for value in kind.values) else ()
        return " or ".join(map(str, values)).lower() or "text"
    name = NAMES[type(kind)]
    return f"{name}s" if many and name in ("number", "text", "object") else name


def missing_text(field: inspect.Field) -> str:
    """Return what a missing field means: its default, `left out`, or nothing if it is required."""
    kind = field.type.type if isinstance(field.type, inspect.Metadata) else field.type
    if field.required or isinstance(kind, inspect.LiteralType):
        return ""
    if field.default is NODEFAULT:
        return "left out" if field.default_factory is NODEFAULT else "empty"
    if isinstance(field.default, Fields):
        return "zeros"
    named = {"": "empty", "None": "null"}
    return named.get(f"{field.default}", f"{field.default}".lower().removesuffix(".0"))


def table(definition: type[Fields]) -> str:
    """Return the table of a definition's fields."""
    found = inspect.type_info(definition)
    assert isinstance(found, inspect.StructType)
    rows = []
    for field in found.fields:
        extra = field.type.extra_json_schema if isinstance(field.type, inspect.Metadata) else None
        meaning = (extra or {}).get("description", "")
        rows.append((f"`{field.encode_name}`", type_text(field.type), missing_text(field), meaning))
    head: tuple[str, ...] = ("field", "type", "if missing", "meaning")
    if not any(row[2] for row in rows):
        head, rows = head[:2] + head[3:], [row[:2] + row[3:] for row in rows]  # type: ignore[misc]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with all its tables as they should be."""
    classes = {found.__name__: found for found in definitions()}
    return TABLE.sub(lambda match: f"{match[1]}{table(classes[match[2]])}{match[3]}", text)


def main() -> int:
    """Write the tables, or check them; return the exit code."""
    text = PAGE.read_text(encoding="utf-8")
    made = page(text)
    if "--check" in sys.argv[1:]:
        if made != text:
            print("docs/file-formats.md is not up to date: python docs/file_formats.py", file=sys.stderr)
        return made != text
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
