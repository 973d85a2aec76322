"""Find the data files under a path, in folders and zip archives, and read their bytes; what is not what its ending says
is named.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

TEXT_ENDINGS = (".csv", ".txt", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")
FEATHER_ENDINGS = (".feather", ".arrow")
CANDLE_ENDINGS = (".json", ".json.gz")
ENDINGS = (
    *TEXT_ENDINGS,
    *(e + ".gz" for e in TEXT_ENDINGS),
    *PARQUET_ENDINGS,
    *FEATHER_ENDINGS,
    *CANDLE_ENDINGS,
)
# Prices shrink to a third or a tenth, tables with many blanks to a fiftieth. What claims more than this is damaged or
# was made to fill the memory; below FREE_BYTES it cannot.
SHRINKS, FREE_BYTES = 250, 256 * 2**20
DEFLATE = 1032  # no more than this can come out of a byte (https://zlib.net/zlib_tech.html)
PIECE = 16 * 2**20
MAGIC = (  # what files that carry a wrong ending most often are
    (b"PAR1", "a Parquet file", "rename it to .parquet"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "rename an archive to .zip, save a workbook as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save it as CSV"),
    (b"\x1f\x8b", "gzip data", "rename it to .csv.gz"),
    (b"%PDF", "a PDF", "take it out of the folder"),
    (b"\x89PNG", "a picture", "take it out of the folder"),
)


class FilesError(Exception):
    """Files of which nothing can be used, or that must not be read together."""


class BadFile(Exception):
    """One file that cannot be used: a short reason for quarantine and a sentence; the other files are read."""

    def __init__(self, reason: str, text: str, line: int = -1) -> None:
        super().__init__(text)
        self.reason, self.text, self.line = reason, text, line


@dataclass(frozen=True)
class Entry:
    """Name one data file: `name` is shown to the user, `folder` and `stem` tell source and symbol, `read` gives its
    bytes unpacked.
    """

    name: str
    folder: str
    stem: str
    ending: str
    size: int
    read: Callable[[], bytes]

    @property
    def columnar(self) -> bool:
        return self.ending in (*PARQUET_ENDINGS, *FEATHER_ENDINGS)

    @property
    def feather(self) -> bool:
        return self.ending in FEATHER_ENDINGS

    @property
    def candles(self) -> bool:
        return self.ending in CANDLE_ENDINGS


@dataclass
class Found:
    """Hold what lies under a path: data files by name, files that cannot be opened, endings that are not read."""

    entries: list[Entry] = field(default_factory=list)
    bad: list[tuple[str, BadFile]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


@contextmanager
def opened(path: Path) -> Iterator[Found]:
    """Give the data files under a file or folder; archives stay open inside the block. FilesError where there is
    nothing to read.
    """
    if not path.exists():
        raise FilesError(
            f"expected a folder or file of bars at {path.absolute()}, got nothing there; "
            "give another with --ingest.path"
        )
    found = Found()
    with ExitStack() as stack:
        files = sorted(p for p in path.rglob("*") if not p.is_dir()) if path.is_dir() else [path]
        root = path if path.is_dir() else path.parent
        for file in files:
            relative = file.relative_to(root)
            if any(part.startswith((".", "__MACOSX")) for part in relative.parts):
                continue
            _add(found, stack, file, relative)
        found.entries.sort(key=lambda e: e.name)
        if not found.entries and not found.bad:
            there = ", ".join(f"{n} {e or 'without ending'}" for e, n in found.ignored.most_common(5)) or "no files"
            raise FilesError(
                f"expected files ending in {', '.join((*ENDINGS, '.zip'))} under {path.absolute()}, got {there}; "
                "give the folder that holds the data with --ingest.path"
            )
        yield found


def files_digest(path: str | Path) -> str:
    """Return 32 hexadecimal digits that name the files under a path by name and bytes, so that a changed file changes a
    stage's key.
    """
    root = Path(path)
    total = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file()) if root.is_dir() else [root] * root.is_file():
        relative = file.relative_to(root) if root.is_dir() else Path(file.name)
        if not any(part.startswith(".") for part in relative.parts):
            with file.open("rb") as handle:
                total.update(f"{relative.as_posix()}:{hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:32]


def _add(found: Found, stack: ExitStack, file: Path, relative: Path) -> None:
    name = unicodedata.normalize("NFC", relative.as_posix())
    lower = name.lower()
    if lower.endswith(".zip"):
        try:
            archive = stack.enter_context(zipfile.ZipFile(file))
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            found.bad.append(
                (name, BadFile("broken_zip", f"expected a zip archive, got: {error}; copy or download the file again"))
            )
            return
        for info in archive.infolist():
            inner = unicodedata.normalize("NFC", _member_name(info))
            if info.is_dir() or any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(inner).parts):
                continue
            _add_entry(found, f"{name}/{inner}", info.file_size, partial(_unzipped, archive, info))
        return
    try:
        size = file.stat().st_size
    except OSError as error:
        found.bad.append(
            (
                name,
                BadFile(
                    "unreadable",
                    f"expected a readable file, got: {error.strerror}; check that it exists and its rights",
                ),
            )
        )
        return
    _add_entry(found, name, size, partial(_bytes, file))


def _add_entry(found: Found, name: str, size: int, read: Callable[[], bytes]) -> None:
    lower = name.lower()
    ending = next((e for e in ENDINGS if lower.endswith(e)), None)
    if ending is None:
        found.ignored[PurePosixPath(lower).suffix] += 1
        return
    folder, _, last = name.rpartition("/")
    found.entries.append(
        Entry(
            name,
            folder,
            last[: -len(ending)],
            ending,
            size,
            partial(_unpacked, read) if ending.endswith(".gz") else read,
        )
    )


def _member_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name; archives made on Korean Windows hold cp949 without saying so, and zipfile takes that for
    cp437.
    """
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("cp949")
    except UnicodeError:
        return info.filename


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise BadFile(
            "unreadable", f"expected a readable file, got: {error.strerror}; check that it exists and its rights"
        ) from error


def require_sound_size(packed: int, unpacked: int) -> None:
    """Raise BadFile when data would grow beyond anything that bars can have been packed to."""
    if unpacked > max(FREE_BYTES, SHRINKS * packed):
        raise BadFile(
            "grows_too_much",
            f"expected packed data to grow at most {SHRINKS}-fold, got {unpacked / 2**20:,.0f} MiB or more out of "
            f"{packed / 2**20:,.3f} MiB; download the file again, or unpack it if you trust it",
        )


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    require_sound_size(info.compress_size, info.file_size)  # zipfile stops at the size that is claimed
    try:
        return archive.read(info)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise BadFile(
            "broken_zip", f"expected a sound member of the archive, got: {error}; copy or download the archive again"
        ) from error
    except RuntimeError as error:  # zipfile's way to say that a password is needed
        raise BadFile("unreadable", f"expected an archive without password, got: {error}; unpack it first") from error


def _unpacked(read: Callable[[], bytes]) -> bytes:
    packed = read()
    try:
        if len(packed) * DEFLATE <= FREE_BYTES:
            return gzip.decompress(packed)
        out = bytearray()
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as stream:
            while piece := stream.read(PIECE):
                out += piece
                require_sound_size(len(packed), len(out))
        return bytes(out)
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(
            "not_gzip", f"expected gzip data because of the ending .gz, got: {error}; rename or copy the file again"
        ) from error


def as_text(data: bytes) -> tuple[bytes, list[tuple[int, str]]]:
    """Return UTF-8 with plain line ends, and the lines (number, shown text) that no encoding could read; those are left
    empty.

    UTF-8 with or without a byte order mark, UTF-16 with one, cp949, or a mixture by lines. BadFile where it is no text
    at all.
    """
    for magic, what, remedy in MAGIC:
        if data.startswith(magic):
            raise BadFile("not_text", f"expected a text file of bars, got {what}; {remedy}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            data = data.decode("utf-16").encode()
        except UnicodeDecodeError as error:
            raise BadFile("not_text", f"expected UTF-16 because of the first two bytes, got: {error.reason}") from error
    if b"\x00" in data[:65536]:
        raise BadFile("not_text", "expected a text file of bars, got bytes that are no text; take it out of the folder")
    data = data.removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if not data.strip():
        raise BadFile(
            "empty_file", "expected rows of bars, got an empty file; download it again or take it out of the folder"
        )
    if data.isascii():
        return data, []
    try:
        data.decode()
        return data, []
    except UnicodeDecodeError:
        return _recoded(data)


def _recoded(data: bytes) -> tuple[bytes, list[tuple[int, str]]]:
    first, newline, rest = data.partition(b"\n")
    try:  # the header apart: Korean column names in UTF-8 are also readable, as nonsense, in cp949
        return _either(first) + newline + rest.decode("cp949").encode(), []
    except UnicodeDecodeError:
        pass
    lines, lost = data.split(b"\n"), []
    for i, line in enumerate(lines):
        if not line.isascii():
            try:
                lines[i] = _either(line)
            except UnicodeDecodeError:
                lost.append((i + 1, line.decode("utf-8", errors="backslashreplace")))
                lines[i] = b""
    return b"\n".join(lines), lost


def _either(line: bytes) -> bytes:
    try:
        line.decode()
        return line
    except UnicodeDecodeError:
        return line.decode("cp949").encode()
