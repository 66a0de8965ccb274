"""Local paths and ``s3://`` URIs behind one pyarrow filesystem, and reading errors as one line for the user.

S3 takes credentials, region and endpoint from the AWS environment variables (``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` for a store
other than AWS). Messages hold no credentials. A request fails after ``REQUEST_SECONDS`` without a byte, or with status 500 or 503. It is
made ``ATTEMPTS`` times with growing pauses, so a store that is down is reported within a minute and a half.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from tasks.errors import InputError
from tasks.masking import masked

S3 = "s3://"
GLOB = frozenset("*?[")
CONNECT_SECONDS, REQUEST_SECONDS, ATTEMPTS = 5, 20, 4
NOT_ANSWERED = re.compile(
    r"NETWORK_CONNECTION|SLOW_DOWN|THROTTLING|REQUEST_TIMEOUT|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|curlCode|HTTP status (429|5\d\d)"
)
DENIED = re.compile(
    r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN"
    r"|InvalidAccessKeyId|ExpiredToken|InvalidToken|EXPIRED_TOKEN|HTTP status 40[13]"
)


class StorageUnreachableError(InputError):
    """The object store did not answer. A wrong endpoint looks the same, so after the retries this is bad input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One listed file: ``path`` in its filesystem, ``uri`` for messages, size in bytes, modification time in ns."""

    path: str
    uri: str
    size: int
    modified_ns: int


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the filesystem of ``uri`` and the path in it. Raises InputError for another scheme and for an empty path."""
    if uri.startswith(S3):
        path = uri.removeprefix(S3).strip("/")
        if not path:
            raise InputError(f"{uri!r} names no bucket: write s3://bucket/path")
        return _s3(), path
    if "://" in uri:
        raise InputError(f"{uri}: only local paths and s3:// can be read")
    if not uri:
        raise InputError("an empty path names no file: give a Parquet file, a folder or a glob")
    return fs.LocalFileSystem(), uri.rstrip("/") or "/"


def _s3() -> fs.FileSystem:
    options: dict[str, str] = {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
        options = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        options["region"] = region
    patience = {"connect_timeout": CONNECT_SECONDS, "request_timeout": REQUEST_SECONDS}
    return fs.S3FileSystem(**options, **patience, retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS))


def storage_options() -> dict[str, str]:
    """Return delta-rs options beside the environment: the endpoint that pyarrow writes to, and the same patience."""
    patience = {
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "timeout": f"{REQUEST_SECONDS}s",
        "max_retries": "6",
        "backoff_config.init_backoff": "500ms",
        "backoff_config.max_backoff": "8s",
        "retry_timeout": f"{ATTEMPTS * REQUEST_SECONDS}s",
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3")
    return patience | ({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFiles:
    """The files of an input sorted by path, and the folder they lie below."""

    filesystem: fs.FileSystem
    folder: str
    files: tuple[StoredFile, ...]


Parts = tuple[str, ...]


def list_files(
    uri: str, check: Callable[[str, list[Parts], list[Parts]], None] = lambda uri, listed, matched: None
) -> ListedFiles:
    """Return every file of ``uri`` (a file, a folder read recursively, or a glob with ``* ? [] **``), sorted by path.

    Names that start with ``_`` or ``.`` are left out, as writers of Parquet folders intend. ``check`` gets the paths below the folder: all
    that lie there, and those that are returned. Raises InputError if there is no file, and what ``check`` raises.
    """
    with reading(uri):
        filesystem, path = resolve(uri)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            folder = path.rpartition("/")[0]
            return ListedFiles(filesystem=filesystem, folder=folder, files=(_stored(info, uri),))
        base, pattern = (path, ()) if info.type == fs.FileType.Directory else _split_glob(path)
        if info.type == fs.FileType.NotFound and not pattern:
            raise InputError(f"{uri}: no such file or folder")
        infos = filesystem.get_file_info(fs.FileSelector(base, allow_not_found=True, recursive=True))
    files, listed, matched = [], [], []
    for info in infos:
        parts = tuple(info.path.removeprefix(base).strip("/").split("/"))
        listed.append(parts)
        if info.type == fs.FileType.File and not any(map(_is_hidden, parts)) and _matches(parts, pattern):
            files.append(_stored(info, uri))
            matched.append(parts)
    check(uri, listed, matched)
    _check_links(uri, files)
    if not files:
        raise InputError(f"{uri}: {'no file matches this glob' if pattern else 'this folder holds no file to read'}")
    return ListedFiles(filesystem=filesystem, folder=base, files=tuple(sorted(files, key=lambda x: x.path)))


def _check_links(uri: str, files: list[StoredFile]) -> None:
    """Raise InputError if links give one local file two names: its rows would count twice."""
    seen: dict[str, StoredFile] = {}
    for file in files if not uri.startswith(S3) else ():
        other = seen.setdefault(os.path.realpath(file.path), file)
        if other is not file:
            raise InputError(f"{uri}: {other.uri} and {file.uri} are one and the same file; take the link to it away")


def changed_since(filesystem: fs.FileSystem, files: tuple[StoredFile, ...]) -> StoredFile | None:
    """Return the first of ``files`` that was overwritten after it was listed. A deleted file does not count."""
    with reading(files[0].uri):
        infos = filesystem.get_file_info([x.path for x in files])
    for before, now in zip(files, infos, strict=True):
        if now.type == fs.FileType.File and (now.size, now.mtime_ns) != (before.size, before.modified_ns):
            return before
    return None


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Raise any error of reading ``uri`` as Parquet as an InputError of one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = masked(" ".join(str(error).split("\n")[0].split()))[:300]
        if isinstance(error, FileNotFoundError) or "NO_SUCH_KEY" in reason:
            raise InputError(
                f"{uri}: vanished after it was listed; run again when nothing replaces the files"
            ) from error
        if isinstance(error, PermissionError):
            raise InputError(f"{uri}: no permission to read it") from error
        if "NO_SUCH_BUCKET" in reason:
            raise InputError(
                f"{uri}: there is no such bucket; check its name, AWS_REGION and AWS_ENDPOINT_URL"
            ) from error
        if uri.startswith(S3) and DENIED.search(reason):
            raise InputError(
                f"{uri}: the object store refused the credentials of this environment ({reason}); check AWS_ACCESS_KEY_ID,"
                " AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and what they may read"
            ) from error
        if NOT_ANSWERED.search(reason):
            raise StorageUnreachableError(
                f"{uri}: the object store did not answer ({reason}); check AWS_ENDPOINT_URL and the network"
            ) from error
        raise InputError(
            f"{uri}: cannot be read as Parquet ({reason}); write it again, or name the Parquet files by a glob"
        ) from error


def _stored(info: fs.FileInfo, uri: str) -> StoredFile:
    shown = S3 + info.path if uri.startswith(S3) else info.path
    return StoredFile(path=info.path, uri=shown, size=info.size, modified_ns=info.mtime_ns)


def _is_hidden(name: str) -> bool:
    # "_$folder$" ends the empty marker objects that Hadoop's S3 writers leave beside each folder.
    return name.startswith(("_", ".")) or name.endswith("_$folder$")


def _split_glob(path: str) -> tuple[str, tuple[str, ...]]:
    parts = path.split("/")
    first = next((i for i, part in enumerate(parts) if GLOB & set(part)), len(parts))
    return "/".join(parts[:first]) or "/", tuple(parts[first:])


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Return whether the path or a folder above it matches the pattern; ``**`` stands for any number of folders."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
