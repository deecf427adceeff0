"""The exact history of a run as a file: CSV and Arrow as streams, Parquet through a temporary file. No file is ever
completely in memory."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from django.http import FileResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from pydantic import Field
from rest_framework.request import Request

from experiments.api.http.access import visible_run
from experiments.api.http.base import View
from experiments.api.http.names import check_export
from experiments.api.http.query import Names, Query
from experiments.api.http.renderers import ARROW, CSV, PARQUET, Arrow, Csv, Json, Parquet, to_json
from experiments.lifecycle import NotAllowed
from experiments.store import points_per_bucket
from experiments.store.readers.history import PIECE, Changed, History, Rows, history

IN_MEMORY = 8 * 2**20  # bytes of a Parquet file that stay in memory; a larger one goes to disk
_LONG = 2**17  # rows of one batch in long form
_LONG_COLUMNS = ("group", "name", "step", "time", "value")
_WORDS = pa.dictionary(pa.int32(), pa.string())


class ExportQuery(Query):
    format: Literal["csv", "parquet", "arrow"] | None = Field(None, description="default: by Accept, else csv")
    names: Names = Field(["**"], description="names or globs; `*` stops at a slash, `**` crosses it")
    group: str | None = Field(None, max_length=16, description="only the series of this group: train, eval, probe, …")


class RunExport(View[ExportQuery]):
    """Every recorded point of a run, as a download. Series of one group share their steps: the columns are
    `step, time, <series>, …`, with one row per step. For series of several groups the columns are
    `group, name, step, time, value`, with one row per point, ordered by group and step. `time` is seconds since the run
    started. In CSV a value that is not finite is `nan`, `inf` or `-inf`, and an empty field means that the series has
    no point there. A run that is still training gives the points that it had when the call began; if it goes back to a
    checkpoint meanwhile, the download is aborted (409, or an incomplete reply). Thinned series have the points that the
    retention rule kept: then the file's name ends in `-thinned`, the reply has a header
    `Thinned: series=48; level=1; points=16` (of every 16 points the first, the minimum, the maximum and the last), and
    a Parquet file's metadata has each series' level under `thinned`."""

    query = ExportQuery
    renderer_classes = (Json, Csv, Parquet, Arrow)
    also = (PARQUET, ARROW)
    answers = {"GET": (200, CSV)}

    def get(self, request: Request, run_id: int) -> HttpResponseBase:
        run = visible_run(request, run_id, defer=["spec"])
        query = self.params
        check_export(run, query.names if "names" in query.model_fields_set else [], query.group)
        past = history(run.pk, query.names, query.group)
        thinned = past.thinned
        words = ["run", str(run.pk), *([query.group] if query.group else []), *(["thinned"] if thinned else [])]
        by_accept = {PARQUET: "parquet", ARROW: "arrow"}.get(request.accepted_renderer.media_type, "csv")
        reply = _SEND[query.format or by_accept](_table(past), "-".join(words))
        if thinned:
            points = points_per_bucket(max(thinned.values()))
            reply["Thinned"] = f"series={len(thinned)}; level={max(thinned.values())}; points={points}"
        return reply


@dataclass(frozen=True)
class Table:
    """Batches of one schema, made on demand."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


def _table(past: History) -> Table:
    groups = past.groups
    if len(groups) == 1:
        ((_, names),) = groups.items()
        columns = [("step", pa.int64()), ("time", pa.float64()), *((name, pa.float32()) for name in names)]
        schema = _with_metadata(pa.schema(columns), past)
        return Table(schema, (_wide(rows, names, schema) for rows in past.rows()))
    words = list(dict.fromkeys(name for names in groups.values() for name in names))
    kinds = (_WORDS, _WORDS, pa.int64(), pa.float64(), pa.float32())
    schema = _with_metadata(pa.schema(list(zip(_LONG_COLUMNS, kinds, strict=True))), past)
    return Table(schema, (batch for rows in past.rows() for batch in _long(rows, list(groups), words, schema)))


def _with_metadata(schema: pa.Schema, past: History) -> pa.Schema:
    return schema.with_metadata({"thinned": to_json(past.thinned)}) if past.thinned else schema


def _wide(rows: Rows, names: list[str], schema: pa.Schema) -> pa.RecordBatch:
    """One row per step; series of other attempts are empty here."""
    have = dict(zip(rows.names, rows.values, strict=True))
    missing = pa.nulls(len(rows.steps), pa.float32())
    gone = dict(zip(rows.names, ~rows.present, strict=True)) if rows.present is not None else {}
    columns = [pa.array(have[name], mask=gone.get(name)) if name in have else missing for name in names]
    return pa.record_batch([pa.array(rows.steps), pa.array(rows.times), *columns], schema=schema)


def _long(rows: Rows, groups: list[str], words: list[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """One row per point, in order of steps."""
    series, each = len(rows.names), max(_LONG // len(rows.names), 1)
    codes = np.array([words.index(name) for name in rows.names], np.int32)
    for low in range(0, len(rows.steps), each):
        steps, times = rows.steps[low : low + each], rows.times[low : low + each]
        points = series * len(steps)
        columns = [
            _coded(np.full(points, groups.index(rows.group), np.int32), groups),
            _coded(np.tile(codes, len(steps)), words),
            pa.array(np.repeat(steps, series)),
            pa.array(np.repeat(times, series)),
            pa.array(np.ascontiguousarray(rows.values[:, low : low + each].T).ravel()),
        ]
        batch = pa.record_batch(columns, schema=schema)
        if rows.present is not None:
            batch = batch.filter(pa.array(rows.present[:, low : low + each].T.ravel()))
        yield batch


def _coded(codes: Any, words: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(words, pa.string()))


def _send_csv(table: Table, name: str) -> HttpResponseBase:
    reply = StreamingHttpResponse(_csv(table), content_type=f"{CSV}; charset=utf-8")
    reply["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return reply


def _csv(table: Table) -> Iterator[bytes]:
    yield _text(table.schema.empty_table(), header=True)
    for batch in table.batches:
        yield _text(batch, header=False)


def _text(rows: pa.Table | pa.RecordBatch, *, header: bool) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(rows, sink, pyarrow.csv.WriteOptions(include_header=header))
    return sink.getvalue()


def _send_arrow(table: Table, name: str) -> HttpResponseBase:
    reply = StreamingHttpResponse(_arrow(table), content_type=ARROW)
    reply["Content-Disposition"] = f'attachment; filename="{name}.arrow"'
    return reply


def _arrow(table: Table) -> Iterator[bytes]:
    """The stream format; the bytes of a batch are taken out of the sink before the next one is written."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for batch in table.batches:
            writer.write_batch(batch)
            yield _taken(sink)
    yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written


def _send_parquet(table: Table, name: str) -> HttpResponseBase:
    file = cast(IO[bytes], tempfile.SpooledTemporaryFile(max_size=IN_MEMORY))  # noqa: SIM115  # the reply closes it
    try:
        _write(table, file)
    except Changed as error:
        file.close()
        raise NotAllowed(str(error)) from None
    file.seek(0)
    return FileResponse(file, as_attachment=True, filename=f"{name}.parquet", content_type=PARQUET)


def _write(table: Table, file: IO[bytes]) -> None:
    """Small batches share a row group, so that readers find a few large ones."""
    width = len(table.schema) if table.schema.names[0] == "step" else 1
    with pyarrow.parquet.ParquetWriter(file, table.schema, compression="zstd") as writer:
        waiting: list[pa.RecordBatch] = []
        for next_batch in table.batches:
            waiting.append(next_batch)
            if sum(batch.num_rows for batch in waiting) * width >= PIECE:
                writer.write_table(pa.Table.from_batches(waiting))
                waiting.clear()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting))


_SEND: dict[str, Callable[[Table, str], HttpResponseBase]] = {
    "csv": _send_csv,
    "parquet": _send_parquet,
    "arrow": _send_arrow,
}
