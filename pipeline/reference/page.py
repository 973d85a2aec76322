"""The text of docs/indicators.md: the prose beside this file with what the specs say put in."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import Template
from types import ModuleType

import yaml
from pydantic import TypeAdapter

from storage.section import Section

from .. import cross_section, indicators
from ..features.section import SETS, feature_set
from ..indicators import Indicator, Spec, resolve
from ..indicators.libraries import FORMULAS
from ..indicators.spec import Output, Param
from ..resample import MINUTES, PERIODS
from ..universe import UniverseSection

PROSE = Path(__file__).parent / "indicators.md"
EXAMPLE = """\
about: momentum against the market of the day
features:
  - {indicator: roc, params: {n: [5, 20]}, cross: [winsorise, zscore]}
  - {indicator: sma, params: {n: [20, 60]}, over: close, names: {sma: "MA{n}"}}
  - {indicator: macd, outputs: [macd_histogram], over: close}
  - {indicator: rsi, params: {n: 14}, at: 1w}
  - {indicator: volatility, outputs: [volatility], cross: [{neutralise: [sector]}, rank]}
"""
PICTURES = "indicators"  # the folder of pictures beside the page
TOLERANCE = 1e-9
# What a docstring says to those who read the kernel is not told here.
MAKING = re.compile(r"\b(?:The scratch output|State (?:rows|holds)|All state rows|By blocks of)")
SCALES = {
    "price": "prices",
    "price_change": "prices",
    "volume": "volumes",
    "turnover": "prices and volumes",
    "none": "nothing",
}


def page() -> str:
    """Return the page as Markdown."""
    example = [Spec.model_validate(spec) for spec in yaml.safe_load(EXAMPLE)["features"]]
    filled = Template(PROSE.read_text(encoding="utf-8")).substitute(
        count=len(indicators.ALL),
        outputs=sum(len(one.outputs) for one in indicators.ALL),
        tolerance=f"{TOLERANCE:g}",
        index=_lines(_row(_title(f)[0], " ".join(map(_link, f.ALL))) for f in families()),
        sets="\n".join(_set(path) for path in sorted(SETS.glob("*.yaml"))),
        example=EXAMPLE,
        example_columns=_names(c.name for c in resolve(example)),
        spec=_lines(_row(f"`{name}`", field.description or "") for name, field in Spec.model_fields.items()),
        intervals=_names([*MINUTES, "1d", *PERIODS]),
        operators=_lines(_operators()),
        universe=_lines(_settings(UniverseSection)),
        refused=_names(one.name for one in indicators.ALL if one.name not in FORMULAS),
        families="\n".join(_family(family) for family in families()),
    )
    return filled.rstrip() + "\n"


def families() -> list[ModuleType]:
    """Return the modules of the indicators, in the order of ALL."""
    modules = [m for m in vars(indicators).values() if inspect.ismodule(m) and hasattr(m, "ALL")]
    return sorted(modules, key=lambda family: indicators.ALL.index(family.ALL[0]))


def _title(family: ModuleType) -> tuple[str, str]:
    """Return the heading of a family and what else its module says of it."""
    said = re.sub(r"\s*See spec\.py for [^.]*\.(?=\s|$)", "", "\n\n".join(_paragraphs(family.__doc__)))
    first, _, more = said.partition("\n\n")
    head, _, rest = first.partition(": ")
    return head.strip().rstrip("."), f"{rest[:1].upper()}{rest[1:]}\n\n{more}".strip()


def _family(family: ModuleType) -> str:
    head, rest = _title(family)
    return "\n".join([f"## {head}\n", *([f"{rest}\n"] if rest else []), *map(_indicator, family.ALL)])


def _indicator(one: Indicator) -> str:
    formula, *notes = _paragraphs(one.doc)
    notes = [kept for note in notes if (kept := MAKING.split(note)[0].strip())]
    columns = resolve([Spec(indicator=one.name)])
    defaults = one.values({})
    warmup = one.warmup(*defaults)
    within = f" within {one.tolerance:g}" if one.tolerance != TOLERANCE else ""
    what = "bars" if one.counts == "bars" else "bars on which an input changes"
    steady = f"{warmup:,.0f} {what}{within}" if warmup != float("inf") else "never over"
    parts = [f"### `{one.name}`", formula, *notes, f"![{one.name}]({PICTURES}/{one.name}.svg)"]
    if one.params:
        rows = [_row(f"`{p.name}`", f"{p.default:g}", _range(p)) for p in one.params]
        parts.append("\n".join([_row("parameter", "default", "range"), "|---|---|---|", *rows]))
    rows = [
        _row(f"`{o.name}`", f"`{c.name}`", o.unit, _bounds(o), SCALES[o.scales_with])
        for o, c in zip(one.outputs, columns)
    ]
    head = _row("output", "column", "unit", "bounds", "scales with")
    parts.append("\n".join([head, "|---|---|---|---|---|", *rows]))
    rising = f"Expects {' < '.join(one.rising)}. " if one.rising else ""
    known = f"Ready at bar {one.ready(*defaults):,.0f}, warm-up {steady}."
    parts.append(f"{rising}Reads {', '.join(one.inputs)}. {known} Source: {one.source.rstrip('.')}.")
    return "\n\n".join(parts) + "\n"


def _set(path: Path) -> str:
    """Say what a shipped set is for and list its columns."""
    about = yaml.safe_load(path.read_text(encoding="utf-8")).get("about", "")
    columns = resolve(feature_set(path.stem))
    names = _names(c.name for c in columns)
    return f"**[`{path.stem}`](../pipeline/feature_sets/{path.name})**: {about}. {len(columns)} columns: {names}.\n"


def _operators() -> Iterator[str]:
    """Read what the docstring says of each operator: a line `name : what` and those that go on."""
    text = " ".join((cross_section.Operator.__doc__ or "").split())
    written = {
        "rank": "`rank`",
        "zscore": "`zscore`",
        "winsorise": f"`winsorise` (limit {cross_section.LIMIT:g}), `{{winsorise: 0.02}}`",
        "neutralise": "`{neutralise: [sector]}`, `[size]`, `[sector, size]`",
    }
    parts = re.split(rf"\b({'|'.join(cross_section.NAMES)}) : ", text)
    for name, what in zip(parts[1::2], parts[2::2]):
        yield _row(f"`{name}`", written[name], what.strip())


def _settings(section: type[Section]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        value = TypeAdapter(object).dump_python(field.get_default(call_default_factory=True), mode="json")
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
        yield _row(f"`{name}`", f"`{text}`", field.description or "")


def _paragraphs(doc: str | None) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", inspect.cleandoc(doc or ""))]


def _range(p: Param) -> str:
    return f"{p.low:g} to {p.high:g}{', whole numbers' if p.whole else ''}"


def _bounds(o: Output) -> str:
    low, high = (f"{x:g}" if abs(x) != float("inf") else "" for x in o.bounds)
    if low and high:
        return f"{low} to {high}"
    return f"at least {low}" if low else f"at most {high}" if high else "none"


def _link(one: Indicator) -> str:
    return f"[`{one.name}`](#{one.name})"


def _names(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)
