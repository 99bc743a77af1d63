"""Template filters that format numbers and times. How numbers are written is in `lightning_bso.quantities`."""

from datetime import UTC, datetime

from flask import current_app
from markupsafe import Markup

from lightning_bso.quantities import J_PER_WH, UNKNOWN, count, duration, number, quantity

__all__ = ["amount", "bill", "count", "duration", "moment", "utc"]

GRAMS_PER_TONNE = 1e6


def amount(value: float | None, unit: str = "") -> str:
    """A quantity with an SI prefix, or a plain number if it has no unit."""
    return quantity(value, unit) if unit else number(value)


def utc(at: datetime | None) -> str:
    """A time in ISO 8601, in UTC, for files and attributes. A time without a zone is in UTC."""
    if at is None:
        return ""
    return f"{(at.astimezone(UTC) if at.tzinfo else at):%Y-%m-%dT%H:%M:%SZ}"


def moment(at: datetime | None) -> str:
    """A time in UTC. The script `times.js` shows it in the browser's zone, and in words if it is recent."""
    if at is None:
        return UNKNOWN
    text = utc(at)
    return Markup('<time datetime="{}">{} UTC</time>').format(text, text[:-1].replace("T", " "))


def bill(energy_j: float) -> str:
    """An energy in Wh, with its price and its carbon dioxide where the settings have their rates."""
    config, kwh = current_app.config, energy_j / J_PER_WH / 1000
    parts = [quantity(kwh * 1000, "Wh")]
    if config["PRICE_PER_KWH"] is not None:
        parts.append(f"{kwh * config['PRICE_PER_KWH']:,.2f} {config['CURRENCY']}")
    if config["GRAMS_CO2_PER_KWH"] is not None:
        grams = kwh * config["GRAMS_CO2_PER_KWH"]
        mass = quantity(grams / GRAMS_PER_TONNE, "t") if abs(grams) >= GRAMS_PER_TONNE else quantity(grams, "g")
        parts.append(f"{mass} CO₂")
    return ", ".join(parts)
