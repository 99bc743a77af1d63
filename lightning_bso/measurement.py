"""Measures one rank's part of a run, window by window.

A failing meter must not stop the training. So nothing here raises: the failure becomes the `problem` of a `Window`.
`optimizer` adds up the windows of all ranks and reports the totals. The meters are in `energy`.
"""

from dataclasses import dataclass

from lightning_bso.energy import EnergyMeter, Reading


@dataclass(slots=True)
class Window:
    """The energy and time that one rank used between two reports."""

    reading: Reading | None = None
    """None if another rank measures this rank's part, or if the meter raised an error."""
    problem: str | None = None
    """Why the reading is missing or not valid, or None if the meter works."""


class Measurement:
    """The measurement of one rank.

    Args:
        meter: the rank's meter. None: another rank measures this rank's part.
    """

    def __init__(self, meter: EnergyMeter | None = None) -> None:
        self.meter = meter
        self._window: Window | None = None

    @property
    def is_open(self) -> bool:
        """Whether a window is open."""
        return self._window is not None

    def begin(self) -> None:
        """Open a window."""
        window = Window()
        try:
            if self.meter is not None:
                self.meter.begin()
        except Exception as error:  # each driver raises its own class
            window.problem = f"{type(error).__name__}: {error}"
        self._window = window  # only now: a signal handler may save a checkpoint, which closes an open window

    def end(self) -> Window:
        """Close the window and return it."""
        window, self._window = self._window or Window(), None
        try:
            if self.meter is not None and window.problem is None:
                window.reading = reading = self.meter.end()
                if not (reading.energy_j >= 0 and reading.time_s >= 0):
                    raise ValueError(f"its reading is {reading.energy_j} J in {reading.time_s} s")
        except Exception as error:
            window.problem = f"{type(error).__name__}: {error}"
        return window

    def split(self) -> Reading | None:
        """Close the window, open the next one, and return the reading of the closed window.

        If the meter failed, the result is None, and the next window has the same problem.
        """
        window = self.end()
        self.begin()
        if window.problem is None:
            return window.reading
        if self._window is not None:
            self._window.problem = window.problem
        return None
