"""Where decoding may begin when a film is wanted from a later time on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_HELD = 32 * 1024 * 1024
"""Bytes of packets that wait until it is known from which of them on they are decoded."""
_MOST_TRIED = 100  # key frames, from the last one back; where so many are none, the others are none either


def last_start(av: Any, stream: Any, packets: Sequence[Any], keys: Sequence[int]) -> int:
    """The number of the last packet, in the order of the file, at which decoding may begin; 0, the first one, always
    may.

    Not every packet that is said to be a key frame, as ``keys`` are, is one: H.264 with intra refresh says so where the
    picture begins to become whole, and AVI's of H.263 of every packet. Those are believed that make a whole picture
    alone.
    """
    tried = [key for key in keys[-_MOST_TRIED:] if key]
    return next((key for key in reversed(tried) if _is_whole(av, stream, packets[key])), 0)


def _is_whole(av: Any, stream: Any, packet: Any) -> bool:
    """Whether a decoder that has seen nothing else makes a key frame out of a packet."""
    described = stream.codec_context
    decoder = av.CodecContext.create(described.name, "r")
    decoder.extradata = described.extradata
    decoder.codec_tag = described.codec_tag
    decoder.width, decoder.height = described.width, described.height
    if described.pix_fmt is not None:
        decoder.pix_fmt = described.pix_fmt
    try:
        pictures = [*decoder.decode(packet), *decoder.decode(None)]
    except (av.error.FFmpegError, OSError, ValueError):
        return False
    return bool(pictures) and all(picture.key_frame and not picture.is_corrupt for picture in pictures)
