"""Files that users have become checked bars: CSV a symbol, panels of closes, Parquet, in folders and archives."""

from .files import FilesError, files_digest
from .load import load
from .section import ImportSection, Loaded

__all__ = ["FilesError", "ImportSection", "Loaded", "files_digest", "load"]
