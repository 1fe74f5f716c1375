"""A store as one Parquet table: a row an utterance, a column a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipmsa.cache.errors import ExchangeError
from clipmsa.cache.files import publish
from clipmsa.cache.frames import means
from clipmsa.cache.store import FeatureStore

_BLOCK = 1024  # utterances in memory at a time


def write_parquet(store: FeatureStore, out: Path) -> None:
    """Write the table of utterances and a column of pooled vectors for each stream.

    A missing modality is null. `numpy.stack(frame["albert"].dropna())` is a matrix again.

    Raises:
        ExchangeError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ExchangeError(
            "Parquet needs pyarrow, which is not installed: pip install 'clipmsa[parquet]'"
        ) from None
    table = pa.Table.from_pandas(store.utterances, preserve_index=False)
    vectors = {
        name: pa.list_(pa.float32(), stream.spec.dim) for name, stream in store.streams.items()
    }
    clash = sorted(set(table.column_names) & vectors.keys())
    if clash:
        raise ExchangeError(f"{store.path}: stream '{clash[0]}' is called as a column of the table")
    schema = pa.schema([*table.schema, *(pa.field(*item) for item in vectors.items())])
    with publish(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for start in range(0, max(1, len(store)), _BLOCK):
            end = min(start + _BLOCK, len(store))
            block = table.slice(start, end - start)
            columns = list(block.columns)
            for name, stream in store.streams.items():
                cells: list[Any] = [None] * (end - start)
                for row, vector in means(stream, start, end):
                    cells[row - start] = vector
                columns.append(pa.array(cells, vectors[name]))
            writer.write_table(pa.table(columns, schema=schema))
