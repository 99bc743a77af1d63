"""Template filters that format numbers and times."""

from datetime import UTC, datetime

from flask import current_app

from ...core.cost import format_joules

J_PER_KWH = 3.6e6


def amount(value: float | None, unit: str = "") -> str:
    """A number with four digits; joules in J, kJ, MJ or GJ."""
    if value is None:
        return "–"
    return format_joules(value) if unit == "J" else f"{value:.4g} {unit}".strip()


def moment(at: datetime | None) -> str:
    """A time, in UTC."""
    if at is None:
        return "–"
    return f"{(at.astimezone(UTC) if at.tzinfo else at):%Y-%m-%d %H:%M:%S}"


def duration(seconds: float | None) -> str:
    """A duration, in the largest unit that it fills."""
    if seconds is None:
        return "–"
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if abs(seconds) >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"


def bill(energy_j: float) -> str:
    """An energy in kWh, with its price and its carbon dioxide where the settings have their rates."""
    config, kwh = current_app.config, energy_j / J_PER_KWH
    parts = [f"{kwh:.4g} kWh"]
    if config["PRICE_PER_KWH"] is not None:
        parts.append(f"{kwh * config['PRICE_PER_KWH']:.2f} {config['CURRENCY']}")
    if config["GRAMS_CO2_PER_KWH"] is not None:
        parts.append(f"{kwh * config['GRAMS_CO2_PER_KWH'] / 1000:.3g} kg CO₂")
    return ", ".join(parts)
