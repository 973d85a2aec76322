"""The features stage: a Dask graph with one task a lake group; each reads its bars, computes columns and targets, and
writes one block.

Nothing is shuffled and no frame travels: a task returns one row of summary. A finished block carries its content
digest beside it, so that a stage killed anywhere goes on with what verifies and ends with the same content.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import field_validator

from storage.lake import Backend, framed
from storage.schema import TS, content_digest
from storage.section import Section, digest_of, setting
from storage.store import StoreError, read_json, write_json, write_parquet

from .actions import adjust
from .indicators import BarsError, Column, Spec, plan_of, reads, resolve
from .indicators.frame import array_of, on_host, series_of, values_of
from .indicators.spec import nearest
from .job import Job
from .labels import LabelSection, forward_returns
from .left_out import counted, empty_columns, some
from .receipt import Receipt
from .recurrence import Series, prepare
from .tradable import bases, fills, listing, untraded

SETS = Path(__file__).parent / "feature_sets"


class FeatureError(ValueError):
    """Features that cannot be made as asked; the message says expected, got, where and what to do."""


class FeatureSection(Section):
    """Which columns are computed from the bars."""

    set: str = setting(
        "auto", "a feature set of pipeline/feature_sets, or auto: close for panels of closes, else basic"
    )
    extra: tuple[Spec, ...] = setting((), "columns besides those of the set")
    interval: str = setting("1d", "bars that are read", pattern=r"^\d+(m|h|d|w|mo)$")
    dtype: Literal["float32", "float64"] = setting("float32", "type in which columns are stored")
    chunk: int = setting(
        512, "bars of a tile, a multiple of 8", unit="bars", ge=8, le=65536, multiple_of=8, runtime=True
    )
    threads: int = setting(
        1, "threads inside one task; Dask runs several tasks at once anyway", ge=1, le=256, runtime=True
    )

    @field_validator("set")
    @classmethod
    def _known(cls, name: str) -> str:
        known = ["auto", *sorted(path.stem for path in SETS.glob("*.yaml"))]
        if name not in known:
            raise ValueError(f"expected a feature set, got '{name}'{nearest(name, known)}")
        return name

    @field_validator("extra")
    @classmethod
    def _computable(cls, extra: tuple[Spec, ...]) -> tuple[Spec, ...]:
        resolve(extra)
        return extra

    def columns(self, *, close_only: bool) -> tuple[Column, ...]:
        """Return the columns that are computed; a source of closes only can have none that read anything else."""
        name = self.set if self.set != "auto" else "close" if close_only else "basic"
        found = resolve([*feature_set(name), *self.extra])
        other = [c.name for c in found if close_only and set(reads([c])) != {"close"}]
        if other:
            raise FeatureError(
                f"expected columns made of closes only, because the source has nothing else, got {other}; "
                "use --features.set close"
            )
        return found


def feature_set(name: str) -> list[Spec]:
    """Read a feature set that is shipped with the package: the specs under `features`."""
    found = yaml.safe_load((SETS / f"{name}.yaml").read_text(encoding="utf-8"))
    return [Spec.model_validate(one) for one in found["features"]]


@dataclass(frozen=True)
class Order:
    """Tell a task what to make of its group; small, because every task carries it."""

    out: Path
    receipt: Path
    backend: Backend
    features: FeatureSection
    labels: LabelSection


def features(job: Job, section: FeatureSection, label_section: LabelSection) -> dict[str, Any]:
    """Write blocks of features and targets for all bars of the receipt; see columns.json for what each column is.

    blocks/<group>.parquet : sorted by (symbol, ts): symbol, ts, close (adjusted KRW, float64), features, targets
    y_<h> (float32) and their end stamps. NaN = not yet known or no bar. Features see bars up to and including their
    own; targets look ahead. Raises FeatureError.
    """
    receipt = Receipt.load(job.inputs["ingest"])
    if section.interval not in receipt.intervals and not receipt.finer(section.interval):
        raise FeatureError(
            f"expected bars of {' or '.join(receipt.intervals)}, got --features.interval {section.interval}; "
            "ingest it or choose one"
        )
    columns = section.columns(close_only=receipt.close_only)
    groups = receipt.groups(section.interval)
    (job.out / "blocks").mkdir(parents=True, exist_ok=True)
    done = {group: found for group in groups if (found := _finished(job.out, group)) is not None}
    waiting = [group for group in groups if group not in done]
    job.emit("progress", done=len(done), total=len(groups), unit="groups")
    if waiting:
        order = Order(job.out, job.inputs["ingest"], job.cluster.backend, section, label_section)
        if job.cluster.device == "cpu":
            prepare(plan_of(columns), section.dtype)  # once, before workers start
        for summary in _run(job, order, waiting):
            done[summary["group"]] = summary
            job.emit(
                "progress", done=len(done), total=len(groups), unit="groups", rows=sum(s["rows"] for s in done.values())
            )
    return _finish(job, section, label_section, columns, [done[group] for group in sorted(done)])


def _run(job: Job, order: Order, groups: list[int]) -> Any:
    """Submit the graph and yield the summaries as tasks end.

    One graph for pandas and cuDF: the frame of bars lives and dies inside a task, so that its kind is the task's own
    business and the client needs no cuDF frame, which would open a CUDA context here.
    """
    import dask.dataframe as dd
    from distributed import as_completed

    client = job.cluster.client()
    graph = dd.from_map(features_block, groups, order=order, meta=_summary_frame([]), label="features")
    futures = client.compute(graph.to_delayed())
    try:
        for _, frame in as_completed(futures, with_results=True):
            yield from map(json.loads, frame["summary"])
    finally:
        client.cancel(futures)


def features_block(group: int, order: Order) -> pd.DataFrame:
    """Make the block of one lake group on a worker and return its summary as one row."""
    start = time.perf_counter()
    receipt = Receipt.load(order.receipt)
    columns = order.features.columns(close_only=receipt.close_only)
    interval = order.features.interval
    symbols = receipt.groups(interval)[group]
    names = sorted({*reads(columns), "close", "volume"} | (set() if receipt.close_only else {"open"}))
    bars = framed(receipt.bars(interval, symbols=symbols, columns=["symbol", "ts", *names]), order.backend)
    read = time.perf_counter()
    table, report = block_of(bars, receipt, columns, order)
    computed = time.perf_counter()
    path = order.out / "blocks" / f"{group:03d}.parquet"
    write_parquet(path, table)
    summary = {
        "group": group,
        "rows": table.num_rows,
        "symbols": len(report["symbols"]),
        "digest": content_digest(table),
        "broken": report["broken"],
        "short": report["short"],
        "empty": report["empty"],
        "complete": report["complete"],
        "priced": report["priced"],
        "infinite": report["infinite"],
        "seconds_read": round(read - start, 4),
        "seconds_compute": round(computed - read, 4),
        "seconds_write": round(time.perf_counter() - computed, 4),
    }
    write_json(path.with_suffix(".json"), summary)
    return _summary_frame([summary])


def block_of(bars: Any, receipt: Receipt, columns: tuple[Column, ...], order: Order) -> tuple[pa.Table, dict[str, Any]]:
    """Return the block made of a frame of raw bars, and what is to be said about it: symbols, broken, short and empty
    ones, how many are complete, how many bars have a price to fill at, infinite values.

    A symbol whose bars are unsorted or doubled is left out; one with fewer bars than the columns need, or without any
    value in a column of bars that is read, is kept, with NaN. A halt that the source wrote as a bar without volume is
    no bar, as is one without prices. That is decided here and not at ingest: the lake keeps what the source said, and
    whether it knows volumes at all shows only in the whole of it.
    """
    bars, series, broken = _sound(bars)
    adjusted = adjust(bars, receipt.actions())
    plan, section = plan_of(columns), order.features
    halted = untraded(bars["volume"], bars["ts"].astype("int64"), receipt, section.interval).fillna(False)
    seen_as = adjusted
    if bool(halted.any()):  # one column that is not finite takes the row out
        gate = reads(columns)[0]
        seen_as = adjusted.assign(**{gate: adjusted[gate].mask(halted, np.nan)})
    values, bar = values_of(
        seen_as, series, plan, reads(columns), section.dtype, threads=section.threads, chunk=section.chunk
    )
    values = on_host(values)
    wild = np.isinf(values)
    infinite = int(np.count_nonzero(wild))
    if infinite:
        values[wild] = np.nan
    names = [str(name) for name in on_host(bars["symbol"].iloc[series.starts])] if len(bars) else []
    ready = max(c.ready for c in columns)
    counts = counted(on_host(bar), series)
    empty = empty_columns(bars, on_host(halted), [*reads(columns), _fill(receipt)], series, names)
    table = pa.table(
        {
            "symbol": _text(bars["symbol"]),
            "ts": pa.array(_stamps(bars), TS),
            "close": pa.array(on_host(array_of(adjusted["close"]))),
            **{c.name: pa.array(row) for c, row in zip(columns, values)},
            **_targets(bars, adjusted, on_host(halted), series, names, receipt, order.labels),
        }
    )
    told = {
        "symbols": names,
        "broken": broken,
        "short": {name: int(n) for name, n in zip(names, counts) if n < ready and name not in empty},
        "empty": empty,
        "complete": int(np.count_nonzero(counts >= ready)),
        "priced": int(np.count_nonzero(on_host(array_of(bars[_fill(receipt)])) > 0.0)),
        "infinite": infinite,
    }
    return table, told


def _fill(receipt: Receipt) -> str:
    """Return the column of bars at whose prices orders fill."""
    return "close" if receipt.close_only else "open"


def _sound(bars: Any) -> tuple[Any, Series, dict[str, str]]:
    """Take out the symbols whose bars do not follow one another, and say what was wrong with each."""
    broken: dict[str, str] = {}
    while True:
        try:
            return bars, series_of(bars), broken
        except BarsError as error:
            broken[error.symbol] = str(error)
            bars = bars[bars["symbol"] != error.symbol].reset_index(drop=True)


def _targets(
    bars: Any, adjusted: Any, halted_N: Any, series: Series, names: list[str], receipt: Receipt, section: LabelSection
) -> dict[str, pa.Array]:
    """Return the target columns and their end stamps; they are made on the host, where the block is written from."""
    stamps = _stamps(bars)
    of = listing(names, receipt.symbol_table())
    name = _fill(receipt)
    raw, raw_close, close, price = (
        on_host(array_of(column)) for column in (bars[name], bars["close"], adjusted["close"], adjusted[name])
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = close / raw_close
    days = (stamps + np.timedelta64(9, "h")).astype("datetime64[D]")
    sides = fills(
        np.where(halted_N, np.nan, raw),
        bases(raw_close, factor, days, series),
        days,
        np.repeat(np.arange(len(names)), series.lengths),
        of if receipt.market == "KRX" else None,
    )
    buy, sell = (np.where(np.isnan(side), np.nan, price) for side in sides)
    ended = np.array([day is not None and day <= receipt.end for day in of.delisted], bool)
    out: dict[str, pa.Array] = {}
    for target in section.targets():
        y, exit = forward_returns(buy, sell, close, series, ended, target["horizon"])
        out[target["name"]] = pa.array(y.astype(np.float32))
        out[target["end"]] = pa.array(stamps[exit] if stamps.size else stamps, TS, mask=exit < 0)
    return out


def _stamps(bars: Any) -> Any:
    """Return the end of each bar as (N,) datetime64[us], UTC."""
    return on_host(bars["ts"].astype("int64")).astype("datetime64[us]")


def _text(column: Any) -> pa.Array:
    return (column.to_arrow() if hasattr(column, "to_arrow") else pa.array(column)).cast(pa.string())


def _finished(out: Path, group: int) -> dict[str, Any] | None:
    """Return the summary of a block that an earlier attempt finished, if the block still is what the summary says."""
    path = out / "blocks" / f"{group:03d}.parquet"
    try:
        summary = cast("dict[str, Any]", read_json(path.with_suffix(".json")))
        return summary if content_digest(pq.read_table(path)) == summary["digest"] else None
    except (StoreError, OSError, pa.ArrowException):
        return None


def _finish(
    job: Job, section: FeatureSection, labels: LabelSection, columns: tuple[Column, ...], blocks: list[dict[str, Any]]
) -> dict[str, Any]:
    """Write columns.json, tell what is wrong with which symbols, and return the manifest's part."""
    broken = {name: why for block in blocks for name, why in block["broken"].items()}
    short = {name: bars for block in blocks for name, bars in block["short"].items()}
    rows, symbols = sum(block["rows"] for block in blocks), sum(block["symbols"] for block in blocks)
    empty = {name: blank for block in blocks for name, blank in block["empty"].items()}
    ready = max(c.ready for c in columns)
    without = some({name: " and ".join(blank) for name, blank in empty.items()})
    if not any(block["complete"] for block in blocks):
        why = f" ({len(empty)} have no value at all in a column: {without})" if empty else ""
        raise FeatureError(
            f"expected a symbol with at least {ready} complete bars of {section.interval} for the widest column, "
            f"got at most {max(short.values(), default=0)} among {symbols} symbols{why}; ingest a longer range, use "
            "smaller windows or columns that read what there is, such as --features.set close"
        )
    if not any(block["priced"] for block in blocks):
        raise FeatureError(
            f"expected bars of {section.interval} with an open, because orders fill at the next open, got none in all "
            f"{rows} bars, so that no label can be known; give files with opens, or files of closes without open, high "
            "and low, which fill at closes"
        )
    if empty:
        text = f"{len(empty)} symbols have no value at all in a column and take no part in what reads it: {without}"
        job.emit("log", level="warning", text=text)
    for name, why in sorted(broken.items()):
        job.emit("log", level="warning", text=f"{name} left out: {why}")
    if short:
        job.emit(
            "log",
            level="warning",
            text=f"{len(short)} symbols have fewer than the {ready} complete bars that every column needs: "
            f"{some(short)}",
        )
    infinite = sum(block["infinite"] for block in blocks)
    if infinite:
        job.emit(
            "log", level="warning", text=f"{infinite} infinite values (a price or volume of zero) were stored as NaN"
        )
    write_json(
        job.out / "columns.json",
        {
            "interval": section.interval,
            "features": [
                {
                    "name": c.name,
                    "unit": c.unit,
                    "scales_with": c.scales_with,
                    "indicator": c.indicator.name,
                    "params": c.params,
                    "ready": c.ready,
                    "source": c.indicator.source,
                }
                for c in columns
            ],
            "targets": labels.targets(),
        },
    )
    return {
        "content": digest_of({f"{block['group']:03d}": block["digest"] for block in blocks}),
        "rows": rows,
        "columns": len(columns),
        "symbols": symbols,
        "blocks": len(blocks),
        "interval": section.interval,
        "broken": broken,
        "short": short,
        "empty": empty,
        "infinite": infinite,
        "block_seconds": {
            part: round(sum(block[f"seconds_{part}"] for block in blocks), 3) for part in ("read", "compute", "write")
        },
    }


def _summary_frame(summaries: list[dict[str, Any]]) -> pd.DataFrame:
    """Return summaries as the frame that a task gives back: one row each, JSON, because Dask turns objects to text."""
    return pd.DataFrame({"summary": pd.Series([json.dumps(summary) for summary in summaries], dtype="str")})
