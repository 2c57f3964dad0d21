"""An archive's rows as Parquet beside the dump, for queries. Nothing is restored from it, and nothing dropped for it.

What it holds is decided in `columns`, by the catalog and by what the columns hold. `values` converts the text that COPY
writes to Arrow, and what was read back to that very text again: their digests prove the file, as those of the dump
prove the dump. pyarrow is needed by `values`, `write` and `proof` alone, which are imported when they are.
"""
