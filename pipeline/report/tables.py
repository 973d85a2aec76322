"""The report's tables: each takes the numbers and gives HTML."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from .findings import shown_split
from .markup import count, fine, folded, percent, plain, points, ratio, shown, signed_percent, table, won
from .words import benchmark_name, text

Facts = dict[str, Any]
LISTED = 20  # symbols left out that the page lists; the JSON has all
FORMS = {
    "percent": percent,
    "signed": signed_percent,
    "ratio": ratio,
    "count": count,
    "won": won,
}
RETURN = (
    ("total_return", "signed"),
    ("benchmark_total_return", "signed"),
    ("excess_return", "signed"),
    ("annual_return", "signed"),
    ("benchmark_annual_return", "signed"),
    ("return_before_costs", "signed"),
    ("best_session", "signed"),
    ("worst_session", "signed"),
    ("positive_sessions", "percent"),
)
RISK = (
    ("volatility", "percent"),
    ("sharpe", "ratio"),
    ("sharpe_standard_error", "ratio"),
    ("benchmark_sharpe", "ratio"),
    ("sortino", "ratio"),
    ("calmar", "ratio"),
    ("max_drawdown", "percent"),
    ("drawdown_peak", "text"),
    ("drawdown_trough", "text"),
    ("drawdown_recovered", "text"),
    ("benchmark_max_drawdown", "percent"),
)
AGAINST = (
    ("beta", "ratio"),
    ("alpha", "signed"),
    ("information_ratio", "ratio"),
    ("tracking_error", "percent"),
    ("correlation", "ratio"),
)
TRADING = (
    ("turnover_a_year", "ratio"),
    ("exposure", "percent"),
    ("positions", "ratio"),
    ("trades", "count"),
    ("closed_positions", "count"),
    ("hit_rate", "percent"),
    ("mean_profit", "won"),
    ("mean_loss", "won"),
    ("costs_of_capital", "percent"),
    ("costs_of_gross_profit", "percent"),
)
TRAINING = (  # name, title
    ("epochs", "epochs", count),
    ("best_epoch", "best_epoch", count),
    ("seconds", "seconds", ratio),
    ("samples_per_s", "samples", count),
    ("step_p50_ms", "step_p50_ms", ratio),
    ("step_p95_ms", "step_p95_ms", ratio),
    ("wait_share", "wait_share", percent),
    ("peak_memory_mb", "peak_memory_mb", count),
    ("peak_device_mb", "peak_device_mb", count),
    ("gpu_use", "gpu_use", percent),
    ("valid_rank_ic", "valid_rank_ic", fine),
)
GPU = ("peak_device_mb", "gpu_use")  # columns of a machine that has one
QUALITY = (
    ("gaps", "rows"),
    ("torn", "days"),
    ("flat_runs", "symbols"),
    ("short", "symbols"),
    ("beyond_limit", "rows"),
    ("basis_jumps", "rows"),
    ("off_tick", ""),
    ("without_volume", ""),
    ("no_open_high_low", ""),
)


def performance(numbers: Facts, language: str) -> str:
    """Return all numbers of the backtest in columns; what is not known says why."""
    values, reasons = numbers["backtest"]["metrics"], numbers["backtest"]["reasons"]

    def one(rows: tuple[tuple[str, str], ...]) -> str:
        cells = []
        for name, form in rows:
            value, why = values.get(name), reasons.get(name, "")
            inside = (
                plain(value)
                if form == "text" and value is not None
                else shown(value, FORMS.get(form, count), language, why)
            )
            cells.append((escape(text(language, f"m.{name}")), inside))
        return table(("", ""), cells)

    return (
        f'<h3>{escape(text(language, "numbers"))}</h3><div class="columns">'
        f"<div>{one(RETURN + AGAINST)}</div><div>{one(RISK)}</div><div>{one(TRADING)}</div></div>"
    )


def months(numbers: Facts, language: str) -> str:
    """Return a table of years and months, coloured by size; below each month the difference from the benchmark."""
    mine = {(y, m): value for y, m, value in numbers["monthly"]}
    other = {(y, m): value for y, m, value in numbers["monthly_benchmark"]}
    largest = max((abs(v) for v in mine.values()), default=0.0) or 1.0
    against = benchmark_name(numbers["backtest"], language)
    rows = []
    for year in sorted({y for y, _ in mine}):
        cells, product = [f"<td>{year}</td>"], 1.0
        for month in range(1, 13):
            value = mine.get((year, month))
            if value is None:
                cells.append("<td></td>")
                continue
            product *= 1 + value
            than = points(value - other[year, month])
            heat = f"{abs(value) / largest:.2f}"
            cells.append(
                f'<td class="{"up" if value >= 0 else "down"}" style="--heat:{heat}">{signed_percent(value)}'
                f'<span class="than">{than}</span></td>'
            )
        cells.append(f"<td><b>{signed_percent(product - 1)}</b></td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(
        f"<th>{name}</th>" for name in (escape(text(language, "year")), *range(1, 13), escape(text(language, "total")))
    )
    return (
        f'<h3>{escape(text(language, "monthly"))}</h3><div class="scroll"><table class="months">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        f'<p class="soft small">{escape(text(language, "monthly.note", benchmark=against))}</p>'
    )


def forecast(numbers: Facts, language: str) -> str:
    """Return the information coefficients by model and part, the baseline beside the networks."""
    traded = numbers["backtest"]["model"]
    names = ("mean_rank_ic", "mean_ic", "icir", "t_newey_west", "hit_rate.ic", "n_days")
    head = [text(language, name) for name in ("model", "split", *names)]
    rows: list[tuple[str, ...]] = []
    strong: list[int] = []
    for model, by_split in sorted(numbers["forecast"].items(), key=lambda item: (item[0] != traded, item[0])):
        for split, one in by_split.items():
            kind = "traded" if model == traded else "baseline" if model == "ridge" else ""
            tag = (
                f'<span class="tag">{escape(text(language, kind))}</span>'
                if kind and split == shown_split(numbers, model)
                else ""
            )
            if split == shown_split(numbers, model):
                strong.append(len(rows))
            rows.append(
                (
                    escape(model) + tag,
                    escape(text(language, split)),
                    shown(one["mean_rank_ic"], fine, language),
                    shown(one["mean_ic"], fine, language),
                    shown(one["icir"], ratio, language),
                    shown(one["t_newey_west"], ratio, language),
                    shown(one["hit_rate"], percent, language),
                    shown(one["n_days"], count, language),
                )
            )
    note = f'<p class="soft small">{escape(text(language, "ic.note"))}</p>'
    return table(head, rows, texts=(0, 1), strong=strong) + note


def training(numbers: Facts, language: str) -> str:
    """Return what training of each model took and where it stopped, and the rows of each part."""
    found = numbers["training"]
    without = {name for name in GPU if all(one[name] is None for one in found.values())}
    columns = [column for column in TRAINING if column[0] not in without]
    head = [text(language, name) for name in ("model", *(title for _, title, _ in columns))]
    rows = [
        (escape(model), *(shown(one.get(name), form, language) for name, _, form in columns))
        for model, one in found.items()
    ]
    rows_by_part = numbers["splits"]["rows"]
    known = [name for name in ("train", "valid", "test") if isinstance(rows_by_part.get(name), int)]
    parts = " · ".join(f"{escape(text(language, name))} {count(rows_by_part[name])}" for name in known)
    line = (
        f'<p class="soft small">{escape(text(language, "splits"))} ({escape(text(language, "rows"))}): {parts}</p>'
        if parts
        else ""
    )
    if (most := max(one["fits"] for one in found.values())) > 1:
        line += f'<p class="soft small">{escape(text(language, "fits", n=most, folds=numbers["splits"]["folds"]))}</p>'
    return table(head, rows) + line


def tuning(numbers: Facts, language: str) -> str:
    """Return the best trials, nothing where no search ran."""
    if not numbers["tuning"]:
        return ""
    rows = [
        (plain(t["number"]), shown(t["value"], fine, language), f'<span class="mono">{plain(t["params"])}</span>')
        for t in numbers["tuning"]
    ]
    head = [text(language, name) for name in ("trial", "value", "params")]
    return f"<h3>{escape(text(language, 'tuning'))}</h3>{table(head, rows, texts=(0, 2))}"


def positions(numbers: Facts, language: str) -> str:
    """Return the best and the worst closed positions."""
    head = [text(language, n) for n in ("symbol", "opened", "closed", "days", "spent", "profit", "return", "reason")]
    out = []
    for which in ("best", "worst"):
        rows = [
            (
                f'<b>{escape(p["symbol"])}</b> <span class="soft">{escape(p["name"])}</span>',
                plain(p["opened"]),
                plain(p["closed"]),
                shown(p["days"], count, language),
                shown(p["spent"], won, language),
                shown(p["profit"], won, language, coloured=True),
                shown(p["return"], signed_percent, language, coloured=True),
                escape(text(language, f"reason.{p['reason']}")),
            )
            for p in numbers["positions"][which]
        ]
        inside = table(head, rows, texts=(0, 7)) if rows else f'<p class="soft">{escape(text(language, "none"))}</p>'
        out.append(f"<h3>{escape(text(language, f'positions.{which}'))}</h3>{inside}")
    return "".join(out)


def data(numbers: Facts, language: str) -> str:
    """Return what was read, what was refused and what is unusual about the rest."""
    facts = numbers["data"]
    rows = [(escape(name), shown(n, count, language)) for name, n in facts["rows"].items()]
    left = table([text(language, "interval"), text(language, "rows")], rows)
    bad = [
        (f'<span class="mono">{escape(name)}</span>', shown(n, count, language))
        for name, n in facts["quarantined"].items()
    ]
    middle = f"<h3>{escape(text(language, 'quarantined'))}</h3>" + (
        table(("", text(language, "rows")), bad)
        if bad
        else f'<p class="soft">{escape(text(language, "quarantined.none"))}</p>'
    )
    right = _quality(facts["quality"], language)
    return f'<div class="columns"><div>{left}{middle}{_left_out(facts, language)}</div><div>{right}</div></div>'


def _left_out(facts: Facts, language: str) -> str:
    """Return the symbols that take no part and why, the first LISTED of them."""
    found = facts["left_out"]
    if not found:
        return ""
    rows = [(escape(one["symbol"]), escape(one["text"])) for one in found[:LISTED]]
    rows += [("…", escape(text(language, "left_out.more", n=len(found) - LISTED)))] if len(found) > LISTED else []
    heading = escape(text(language, "left_out", n=len(found)))
    return f"<h3>{heading}</h3>{table((text(language, 'symbol'), text(language, 'reason')), rows, texts=(0, 1))}"


def _quality(by_interval: Facts, language: str) -> str:
    out = []
    for interval, found in by_interval.items():
        rows = []
        for name, inner in QUALITY:
            value = found.get(name)
            value = value.get(inner) if isinstance(value, dict) else value
            if value is not None:
                form = percent if name == "off_tick" else count
                rows.append(
                    (
                        f'<span style="white-space:normal">{escape(text(language, f"q.{name}"))}</span>',
                        shown(value, form, language),
                    )
                )
        if rows:
            out.append(f"<h3>{escape(text(language, 'quality'))} {escape(interval)}</h3>{table(('', ''), rows)}")
    return "".join(out)


def stages(numbers: Facts, language: str) -> str:
    """Return seconds, rows, throughput and memory of each stage."""
    head = [text(language, n) for n in ("stage", "seconds", "rows", "rows_per_s", "peak_memory_mb", "made")]
    rows = [
        (
            escape(row["stage"]),
            shown(row["seconds"], ratio, language),
            shown(row["rows"], count, language),
            shown(row["rows_per_s"], count, language),
            shown(row["peak_memory_mb"], count, language),
            plain(row["made"]),
        )
        for row in numbers["stages"]
    ]
    total = numbers["throughput"]
    rows.append(
        (
            f"<b>{escape(text(language, 'total'))}</b>",
            shown(total["total_seconds"], ratio, language),
            "",
            "",
            shown(total["peak_memory_mb"], count, language),
            "",
        )
    )
    return table(head, rows)


def provenance(numbers: Facts, language: str) -> str:
    """Return device, versions, keys and settings: what is needed to make the same again."""
    made = numbers["provenance"]
    machine = f"{made['system']}, {made['cores']} cores, {made['memory_gb']} GB"
    facts = (
        ("device", made["device"]),
        ("system", machine),
        ("python", made["python"]),
        ("commit", made["commit"] or "–"),
        ("settings_digest", made["settings_digest"]),
    )
    top = table(
        ("", ""), [(escape(text(language, n)), f'<span class="mono">{plain(v)}</span>') for n, v in facts], texts=(0, 1)
    )
    packages = ", ".join(f"{escape(k)} {escape(str(v))}" for k, v in made["packages"].items())
    keys = [
        (
            escape(stage),
            f'<span class="mono">{plain(key)}</span>',
            f'<span class="mono">{plain(made["contents"].get(stage))}</span>',
        )
        for stage, key in made["keys"].items()
    ]
    head = [text(language, n) for n in ("stage", "key", "content")]
    settings = escape(json.dumps(made["settings"], indent=1, ensure_ascii=False, default=str))
    return (
        f'{top}<p class="small soft">{escape(text(language, "packages"))}: {packages}</p>'
        + folded(text(language, "keys"), table(head, keys, texts=(0, 1, 2)))
        + folded(text(language, "settings"), f'<pre class="mono" style="white-space:pre-wrap">{settings}</pre>')
    )
