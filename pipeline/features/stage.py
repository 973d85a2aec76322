"""The features stage: a Dask graph with one task a lake group, then one a period for what is decided among symbols.

Nothing is shuffled and no frame travels: tasks return rows of summary. A finished block is named by all that made it,
so that a stage killed anywhere goes on with what is whole and ends with the same content.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from storage.lake import Backend
from storage.section import digest_of
from storage.store import write_json

from ..indicators import Column, plan_of
from ..job import Job
from ..labels import LabelSection
from ..receipt import Receipt
from ..recurrence import prepare
from ..universe import UniverseSection
from .facts import some
from .group import Order, features_group, summary_frame
from .levels import chosen
from .moments import features_moments, wanted
from .pool import FOLDER
from .section import NONE, FeatureError, FeatureSection, feature_set, intervals_of, stored


def features(
    job: Job, section: FeatureSection, label_section: LabelSection, universe: UniverseSection
) -> dict[str, Any]:
    """Write blocks of features and targets for all bars of the receipt; see columns.json for what each column is.

    blocks/<group>-<period>.parquet : sorted by (symbol, ts): symbol, ts, close (adjusted KRW, float64), features
    targets/<same name> : row for row beside it, labels (float32), their end stamps, and member of the universe
    cross/<same name> : columns with operators within a moment, and `member` where only the largest are
    NaN = not yet known, no bar, or no member. Features see bars up to and including their own; targets look ahead.
    Raises FeatureError.
    """
    receipt = Receipt.load(job.inputs["ingest"])
    columns = section.columns(close_only=receipt.close_only)
    checked(receipt, section, columns)
    groups = receipt.groups(section.interval)
    level = chosen(section, receipt, job.cluster, columns)
    job.emit("log", level="info", text=level.said)
    order = ordered(job, level.name, section, label_section, universe)
    if level.name in ("numba", "dask"):
        text = "loading the kernels; each that was never compiled here takes about half a second"
        job.emit("log", level="info", text=text)
        for at in ("", *intervals_of(columns)):
            if part := [c for c in stored(columns) if c.at == at]:
                prepare(plan_of(part), section.dtype)  # once, before workers start
    found: list[dict[str, Any]] = []
    job.emit("progress", done=0, total=len(groups), unit="groups")
    for summary in _each(job, level.name, features_group, [(group, order) for group in groups]):
        found.append(summary)
        job.emit("progress", done=len(found), total=len(groups), unit="groups", rows=sum(s["rows"] for s in found))
    found.sort(key=lambda summary: int(summary["group"]))
    seen = sum(summary["symbols"] + len(summary["broken"]) for summary in found)
    if seen < len(receipt.symbols):
        text = f"{len(receipt.symbols) - seen} of {len(receipt.symbols)} symbols have no bars of {section.interval}"
        job.emit("log", level="info", text=text)
    crossed: dict[str, str] = {}
    known: dict[str, int] = {}
    if wanted(columns, order):
        tasks = [(*one, order, columns) for one in _by_period(found)]
        for done, summary in enumerate(_each(job, level.name, features_moments, tasks), 1):
            crossed |= summary["blocks"]
            known = {name: known.get(name, 0) + n for name, n in summary["known"].items()}
            job.emit("progress", done=done, total=len(tasks), unit="periods")
        _tell_known(job, known, _members(found)["members"])
    return _finish(job, order, columns, found, crossed, level.name)


def ordered(job: Job, level: str, section: FeatureSection, labels: LabelSection, universe: UniverseSection) -> Order:
    """Return what every task is told."""
    backend: Backend = "cudf" if level == "cuda" else "pandas"
    if section.set.endswith((".yaml", ".yml")):  # a worker elsewhere has no such file
        section = section.model_copy(update={"set": NONE, "extra": (*feature_set(section.set), *section.extra)})
    pool = (job.out if job.anew else job.out.parent) / FOLDER
    return Order(job.out, pool, job.inputs["ingest"], backend, section, labels, universe)


def checked(receipt: Receipt, section: FeatureSection, columns: Sequence[Column]) -> None:
    """Raise FeatureError for intervals that are not there and cannot be derived, and for a market without bars."""
    for interval, what in [(section.interval, "--features.interval"), *((at, "at:") for at in intervals_of(columns))]:
        if interval not in receipt.intervals and not receipt.finer(interval):
            raise FeatureError(
                f"expected bars of {' or '.join(receipt.intervals)}, got {what} {interval}; ingest it or choose one"
            )
    for at in ("", *intervals_of(columns)):
        compared = [c.name for c in columns if c.at == at and "market" in c.indicator.inputs]
        name, interval = section.index(receipt), at or section.interval
        if compared and not (name and receipt.bars(interval, symbols=[name], columns=["ts"]).num_rows):
            raise FeatureError(
                f"expected bars of {interval} of an index to compare with, got none of '{name or 'any'}' for "
                f"{compared}; ingest one (--ingest.indices 0001, or files with rows of kind index), name it with "
                "--features.market, or leave these columns out"
            )


def _by_period(found: list[dict[str, Any]]) -> list[tuple[list[str], list[str]]]:
    """Return for each period the names of its blocks and what these hold and is known beside them."""
    out: dict[str, tuple[list[str], list[str]]] = {}
    for summary in found:
        for name, digest in summary["blocks"].items():
            names, digests = out.setdefault(name.partition("-")[2], ([], []))
            names.append(name)
            digests += [digest, summary["beside"][name]]
    return [out[period] for period in sorted(out)]


def _each(job: Job, level: str, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Run a task for each tuple of arguments, here or on the cluster, and yield the summaries as they come."""
    if level not in ("dask", "cuda"):
        pool = ThreadPoolExecutor(max(1, min(len(calls), job.cluster.cores)))
        futures = [pool.submit(job.measured(task), *call) for call in calls]
        try:
            for future in as_completed(futures):
                yield from map(json.loads, future.result()["summary"])
        finally:
            pool.shutdown(cancel_futures=True)
        return
    yield from _on_cluster(job, task, calls)


def _on_cluster(job: Job, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """Submit the graph and yield the summaries as tasks end.

    One graph for pandas and cuDF: the frame of bars lives and dies inside a task, so that its kind is the task's own
    business and the client needs no cuDF frame, which would open a CUDA context here.
    """
    import dask.dataframe as dd
    from distributed import as_completed as completed

    client = job.cluster.client()
    graph = dd.from_map(_called, calls, task=job.measured(task), meta=summary_frame([]), label="features")
    futures = client.compute(graph.to_delayed())
    try:
        for _, frame in completed(futures, with_results=True):
            yield from map(json.loads, frame["summary"])
    finally:
        client.cancel(futures)


def _called(call: tuple[Any, ...], task: Callable[..., Any]) -> Any:
    return task(*call)


def _finish(
    job: Job,
    order: Order,
    columns: Sequence[Column],
    groups: list[dict[str, Any]],
    crossed: dict[str, str],
    level: str,
) -> dict[str, Any]:
    """Write columns.json, tell what is wrong with which symbols, and return the manifest's part."""
    section = order.features
    _refuse_nothing(order, columns, groups)
    told = _tell(job, columns, groups)
    _tell_universe(job, members := _members(groups))
    blocks = {name: digest for group in groups for name, digest in group["blocks"].items()}
    targets = {name: digest for group in groups for name, digest in group["targets"].items()}
    _only(job.out, blocks, crossed)
    write_json(
        job.out / "columns.json",
        {
            "interval": section.interval,
            "features": [described(c) for c in columns],
            "targets": order.labels.targets(),
            "member": "cross" if order.universe.largest else "targets",
        },
    )
    return {
        "content": digest_of({"blocks": blocks, "targets": targets, "cross": crossed}),
        "rows": sum(group["rows"] for group in groups),
        "columns": len(columns),
        "symbols": sum(group["symbols"] for group in groups),
        "blocks": len(blocks),
        "computed": sum(group["computed"] for group in groups),
        "level": level,
        "interval": section.interval,
        "universe": members,
        **told,
        "block_seconds": {
            part: round(sum(group["seconds"][part] for group in groups), 3)
            for part in ("read", "compute", "write", "targets")
        },
    }


def described(column: Column) -> dict[str, Any]:
    """Return what columns.json says about a column."""
    return {
        "name": column.name,
        "unit": column.unit,
        "scales_with": column.scales_with,
        "indicator": column.indicator.name,
        "params": column.params,
        "at": column.at,
        "cross": [operator.written for operator in column.cross],
        "in": "cross" if column.cross else "blocks",
        "ready": column.ready,
        "source": column.indicator.source,
    }


def _only(out: Any, blocks: dict[str, str], crossed: dict[str, str]) -> None:
    """Remove what an attempt with other names left."""
    for folder, names in (("blocks", blocks), ("targets", blocks), ("cross", crossed)):
        for path in (out / folder).glob("*.parquet"):
            if path.stem not in names:
                path.unlink()


def _refuse_nothing(order: Order, columns: Sequence[Column], groups: list[dict[str, Any]]) -> None:
    rows, symbols = sum(group["rows"] for group in groups), sum(group["symbols"] for group in groups)
    ready, interval = max((c.ready for c in columns if not c.at), default=1), order.features.interval
    short = {name: bars for group in groups for name, bars in group["short"].items()}
    empty = {name: blank for group in groups for name, blank in group["empty"].items()}
    if not any(group["complete"] for group in groups):
        never = set.intersection(*map(set, empty.values())) if len(empty) == symbols else set()
        if never:
            raise FeatureError(
                f"expected bars of {interval} with {' and '.join(sorted(never))}, which columns read, got none in all "
                f"{rows} bars; use columns that read what there is, such as --features.set close"
            )
        without = some({name: " and ".join(blank) for name, blank in empty.items()})
        why = f" ({len(empty)} have no value at all in a column: {without})" if empty else ""
        raise FeatureError(
            f"expected a symbol with at least {ready} complete bars of {interval} for the widest column, "
            f"got at most {max(short.values(), default=0)} among {symbols} symbols{why}; ingest a longer range or use "
            "smaller windows"
        )
    if not any(group["priced"] for group in groups):
        raise FeatureError(
            f"expected bars of {interval} with an open, because orders fill at the next open, got none in all "
            f"{rows} bars, so that no label can be known; give files with opens, or files of closes without open, high "
            "and low, which fill at closes"
        )
    if not any(group["universe"].get("members") for group in groups):
        left = _members(groups)
        raise FeatureError(
            f"expected bars of members of the universe, got none among {rows}: {left}; the kinds left out are "
            f"{', '.join(order.universe.leave_out) or 'none'}; loosen the section universe, such as "
            "--universe.leave_out '[]'"
        )


def _members(groups: list[dict[str, Any]]) -> dict[str, int]:
    """Return bars of members, of others by what leaves them out, and of members of whom something is unknown."""
    names = dict.fromkeys(name for group in groups for name in group["universe"])
    return {name: sum(group["universe"].get(name, 0) for group in groups) for name in names}


def _tell_known(job: Job, known: dict[str, int], members: int) -> None:
    """Warn of columns among symbols that are empty for most bars of members: their sizes or sectors were not told."""
    members = known.pop("member", members)
    for name, n in known.items():
        if 2 * n < members:
            text = (
                f"{name} is known for {n:,} of {members:,} bars of members ({n / members:.0%}); a "
                "size is known from the day on which the source first told the number of shares"
            )
            job.emit("log", level="warning", text=text)


def _tell_universe(job: Job, bars: dict[str, int]) -> None:
    left = {name: n for name, n in bars.items() if name != "members" and not name.startswith("unknown") and n}
    if left:
        why = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in left.items())
        text = f"universe: {bars['members']:,} bars of members; left out: {why}"
        job.emit("log", level="info", text=text)


def _tell(job: Job, columns: Sequence[Column], groups: list[dict[str, Any]]) -> dict[str, Any]:
    broken = {name: why for group in groups for name, why in group["broken"].items()}
    short = {name: bars for group in groups for name, bars in group["short"].items()}
    empty = {name: blank for group in groups for name, blank in group["empty"].items()}
    infinite = sum(group["infinite"] for group in groups)
    ready = max((c.ready for c in columns if not c.at), default=1)

    def warn(text: str) -> None:
        job.emit("log", level="warning", text=text)

    if empty:
        without = some({name: " and ".join(blank) for name, blank in empty.items()})
        warn(f"{len(empty)} symbols have no value at all in a column and take no part in what reads it: {without}")
    for name, why in sorted(broken.items()):
        warn(f"{name} left out: {why}")
    if short:
        warn(f"{len(short)} symbols have fewer than the {ready} complete bars that every column needs: {some(short)}")
    if infinite:
        warn(f"{infinite} infinite values (a price or volume of zero) were stored as NaN")
    return {"broken": broken, "short": short, "empty": empty, "infinite": infinite}
