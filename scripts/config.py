"""Print configs/base.yaml as the sections define it: every key with its default, unit and range."""

import sys
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter

from pipeline.config import Config

HEAD = """\
# Every key with its default. This file is made from the sections: python scripts/config.py > configs/base.yaml
"""


def lines(model: type[BaseModel], indent: str = "") -> list[str]:
    """Return the lines of a section; `ingest.end` alone is no default but `today`."""
    out = []
    for name, field in model.model_fields.items():
        kind, remark = field.annotation, f"{indent}# {field.description}"
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            out += ["" if not indent else None, remark, f"{indent}{name}:", *lines(kind, indent + "  ")]
            continue
        choices = [str(c) for c in get_args(kind)] if get_origin(kind) is Literal else []
        if not all(choice in remark for choice in choices):
            remark += f" ({' | '.join(choices)})"
        value = "today" if (indent, name) == ("  ", "end") else field.get_default(call_default_factory=True)
        out += [remark, f"{indent}{name}: {inline(value)}".rstrip()]
    return [line for line in out if line is not None]


def inline(value: Any) -> str:
    """Return a value as YAML on one line; None is nothing."""
    plain = TypeAdapter(Any).dump_python(value, mode="json", exclude_none=True, exclude_defaults=True)
    if plain is None:
        return ""
    text = yaml.safe_dump(plain, default_flow_style=True, allow_unicode=True, width=1000)
    return text.removesuffix("...\n").strip()


if __name__ == "__main__":
    sys.stdout.write(HEAD + "\n".join(lines(Config)) + "\n")
