"""The stage that searches settings of training, its trials on workers."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import yaml

from pipeline.job import Job
from storage.schema import content_digest
from storage.store import replacing, write_parquet
from training.precision import check_precision, settled
from training.section import SearchSection, TrainSection
from training.splits import SplitSection

from . import BEST


def tune(job: Job, split: SplitSection, train: TrainSection, search: SearchSection) -> dict[str, Any]:
    """Search settings of training; leaves trials.parquet and best.yaml, which a next run takes with --config.

    A study is found again by its name: started once more it goes on where it was. SearchError when no trial was
    completed, PrecisionError for fp16 on a CPU, SpaceError for widths that no trial can have.
    """
    from storage.studies import StudyAddress
    from training.search.objective import TrainingObjective
    from training.search.study import Search, SearchError

    device = job.cluster.device
    check_precision(train, device, search.space)
    search.check_widths(train)
    train = settled(train, device)
    address = StudyAddress.choose(job.out / "study.journal", search.storage_url_env)
    name = search.study_name or job.out.name
    job.emit("log", level="info", text=f"study '{name}' in {address}")
    objective = job.measured(TrainingObjective(job.inputs["features"], split, train, search.model, device))
    study = Search(job.cluster.client(), address, name, search, objective, job.emit).run()
    table = _trials(study.get_trials(deepcopy=False))
    write_parquet(job.out / "trials.parquet", table)
    try:
        best = study.best_trial
    except ValueError as error:
        states = dict(Counter(table.column("state").to_pylist()))
        raise SearchError(f"expected at least one complete trial, got {states}; the log has their errors") from error
    with replacing(job.out / BEST) as temporary:
        temporary.write_text(yaml.safe_dump({"train": best.params}), encoding="utf-8")
    return {
        "content": content_digest(table, ("number",)),
        "rows": table.num_rows,
        "pruned": table.column("state").to_pylist().count("PRUNED"),
        "best": {"value": best.value, "params": best.params, "number": best.number},
    }


def _trials(trials: list[Any]) -> pa.Table:
    rows = [
        {
            "number": t.number,
            "slot": int(t.user_attrs.get("slot", t.number)),
            "attempt": int(t.user_attrs.get("attempt", 0)),
            "state": "VOID" if "void" in t.user_attrs else t.state.name,
            "value": t.value,
            "steps": len(t.intermediate_values),
            "params": yaml.safe_dump(t.params, default_flow_style=True).strip(),
        }
        for t in trials
    ]
    kinds = [
        ("number", pa.int64()),
        ("slot", pa.int64()),
        ("attempt", pa.int64()),
        ("state", pa.string()),
        ("value", pa.float64()),
    ]
    return pa.Table.from_pylist(rows, pa.schema([*kinds, ("steps", pa.int64()), ("params", pa.string())]))
