"""A section: a frozen, typed piece of configuration, defined beside the code that reads it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


class Section(BaseModel):
    """Hold one part of the configuration; unknown keys and later changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def keyed(self) -> dict[str, Any]:
        """Return what a result depends on: every field that is not marked `runtime`, ready for JSON."""
        out: dict[str, Any] = {}
        values = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("runtime"):
                continue
            value = getattr(self, name)
            out[name] = value.keyed() if isinstance(value, Section) else values[name]
        return out


def setting(default: Any, description: str, *, unit: str = "", runtime: bool = False, **bounds: Any) -> Any:
    """Declare a field with its description and unit; `bounds` are pydantic's (ge, gt, le, lt, min_length, …).

    `runtime` marks what changes speed or place but no result (worker counts, ports, folders): it stays out of stage
    keys.
    """
    factory = {"default_factory": default} if callable(default) else {"default": default}
    limits = " and ".join(f"{_SIGNS[name]} {bound}" for name, bound in bounds.items() if name in _SIGNS)
    remark = "; ".join(part for part in (unit, limits) if part)
    return Field(
        **factory,
        description=f"{description} [{remark}]" if remark else description,
        json_schema_extra={"unit": unit, "runtime": runtime},
        **bounds,
    )


def digest_of(value: Any) -> str:
    """Return 32 hexadecimal digits that name a JSON-able value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
