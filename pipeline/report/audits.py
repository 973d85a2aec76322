"""What an audit said about the features of this run: numbers for the JSON, tables for the page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from .markup import count, folded, plain, shown, table
from .words import text

Facts = dict[str, Any]
KEYS = {"clean": "clean", "found": "found", "cannot judge": "unjudged"}
COMMAND = "python scripts/audit.py features"
SHOWN = ("verdict", "reason", "trials", "refused", "comparisons", "findings")


def audited(certificate: Mapping[str, Any] | None) -> Facts:
    """Return verdict, checks, findings, columns and bars of a certificate; without one verdict `none` and the command
    that makes one.
    """
    if certificate is None:
        return {"verdict": "none", "command": COMMAND}
    bars = certificate["bars"]
    return {
        "verdict": certificate["verdict"],
        "made": certificate["made"],
        "columns": len(certificate["columns"]),
        "bars": {name: bars[name] for name in ("interval", "rows", "symbols", "first", "last")},
        "asked": certificate["asked"],
        "checks": {
            name: {key: one[key] for key in SHOWN if key != "findings"} for name, one in certificate["checks"].items()
        },
        "findings": [finding for one in certificate["checks"].values() for finding in one["findings"]],
    }


def columns_found(facts: Facts) -> list[str]:
    """Return the columns that break a check, each once; an empty name is the set as a whole."""
    return list(dict.fromkeys(finding["column"] for finding in facts.get("findings", [])))


def audit(numbers: Facts, language: str) -> str:
    """Return the verdict, what was checked and what was found, or how to have it checked."""
    facts = numbers["certificates"]["features"]
    if facts["verdict"] == "none":
        command = f'<pre class="mono" style="white-space:pre-wrap">{escape(facts["command"])}</pre>'
        return f"<p>{escape(text(language, 'audit.none'))}</p>{command}"
    said = text(language, f"audit.{KEYS[facts['verdict']]}", n=len(columns_found(facts)))
    bars = facts["bars"]
    what = text(
        language,
        "audit.what",
        columns=facts["columns"],
        rows=f"{bars['rows']:,}",
        symbols=f"{bars['symbols']:,}",
        first=bars["first"][:10],
        last=bars["last"][:10],
        made=facts["made"],
    )
    head = [text(language, f"audit.{name}") for name in ("check", "verdict", "trials", "comparisons", "reason")]
    rows = [
        (
            f"<b>{escape(name)}</b> {escape(text(language, f'audit.{name}'))}",
            escape(text(language, f"audit.is.{KEYS[one['verdict']]}")),
            shown(one["trials"], count, language),
            shown(one["comparisons"], count, language),
            f'<span style="white-space:normal">{escape(one["reason"])}</span>',
        )
        for name, one in facts["checks"].items()
    ]
    checks = table(head, rows, texts=(0, 1, 4))
    return f"<p><b>{escape(said)}</b> {escape(what)}</p>{checks}{_findings(facts, language)}"


def _findings(facts: Facts, language: str) -> str:
    if not facts["findings"]:
        return ""
    names = ("check", "column", "symbol", "ts", "whole", "got", "what")
    rows = [tuple(plain(one[name]) for name in names) for one in facts["findings"]]
    keys = {"symbol": "symbol", "what": "trial"}
    head = [text(language, keys.get(name, f"audit.{name}")) for name in names]
    return folded(text(language, "audit.findings", n=len(rows)), table(head, rows, texts=(0, 1, 2, 3, 6)))
