"""A request to stop, by Ctrl-C or SIGTERM, that the loop answers between two updates, where it can save its state."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Interrupt:
    """A context in which the first SIGINT or SIGTERM sets `requested`; a second one takes its usual course.

    Outside of the main thread, where Python handles no signals, `requested` stays False.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handlers: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
