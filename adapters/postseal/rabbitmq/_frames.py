"""Sends a message of pika in one piece: not its method, its header and its body each by itself.

pika hands each frame to its transport, and that sends each with a system call of its own; `TCP_NODELAY` is set, so each is a packet, too.
Three of them take longer than sealing 1 KiB. Here the frames of one message are joined before pika puts them out, in the one method of a
connection that all of its adapters share. The bytes, their order and pika's counters stay the same, and all that happens behind: buffers,
partial writes, backpressure, heartbeats.

Source: pika 1.3.2 and 1.4, connection.py (``_send_message``, ``_output_marshaled_frames``).
"""

from __future__ import annotations

from typing import Any, Final

import pika.connection

__all__ = ["join_frames", "part_frames"]

_METHOD: Final = "_output_marshaled_frames"
"""Takes the encoded frames of one method, or of one message. Not public; where it is not as we know it, pika sends as it always did."""
_MOST: Final = 16 * 1024
"""Bytes of one frame up to which to join is cheaper than a system call; also what one record of TLS holds."""
_OF_ONE_MESSAGE: Final = 3
"""Method, header, and the body in one frame. A body in several is long."""


def join_frames(connection: Any) -> None:
    """Have *connection* send the frames of a message that is not long in one piece; do nothing where that is not certain to be right.

    Args:
        connection: One of pika with callbacks; not a blocking one, but that beneath it.
    """
    put_out: Any = getattr(connection, _METHOD, None)
    known = getattr(pika.connection.Connection, _METHOD, None)
    # Another one is an adapter's own, or covered by another library. It is not looked for in `vars`: CPython then reads and writes all
    # attributes of that connection more slowly, for as long as it lives, and pika does so twenty times for each message.
    if known is None or getattr(put_out, "__func__", None) is not known:
        return
    if type(getattr(connection, "frames_sent", None)) is not int:
        return

    def joined(frames: Any) -> Any:
        if type(frames) is not list or len(frames) != _OF_ONE_MESSAGE or len(frames[2]) > _MOST:
            return put_out(frames)
        answer = put_out([b"".join(frames)])
        connection.frames_sent += _OF_ONE_MESSAGE - 1
        return answer

    setattr(connection, _METHOD, joined)


def part_frames(connection: Any) -> None:
    """Undo `join_frames`."""
    if getattr(getattr(connection, _METHOD, None), "__module__", None) == __name__:
        delattr(connection, _METHOD)
