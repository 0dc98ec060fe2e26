"""Images for shipping: a standard LZ4 frame."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO

from ssimage.loader import CHUNK_BYTES


def compress(source: IO[bytes], target: IO[bytes], progress: Callable[[int], None]) -> None:
    """Writes source as an LZ4 frame with its size and checksum."""
    import lz4.frame  # noqa: PLC0415, as few images are compressed

    size_bytes = source.seek(0, os.SEEK_END)
    source.seek(0)
    context = lz4.frame.LZ4FrameCompressor(content_checksum=True, block_linked=True)
    target.write(context.begin(size_bytes))
    while chunk := source.read(CHUNK_BYTES):
        target.write(context.compress(chunk))
        progress(len(chunk))
    target.write(context.flush())
