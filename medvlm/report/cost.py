"""What compute.json says, in words: what is not known is said to be unknown, with the reason where it has one."""

from __future__ import annotations

from medvlm.report.context import RunContext
from medvlm.report.values import mapping, number, text

UNKNOWN = "unknown"


def hours(run: RunContext) -> str:
    """Return the time the run took."""
    seconds = number(run.compute.get("seconds"))
    return UNKNOWN if seconds is None else f"{seconds / 3600:.3f} h"


def memory(run: RunContext) -> str:
    """Return the most memory it used."""
    peak = number(run.compute.get("peak_memory_bytes"))
    return UNKNOWN if peak is None else f"{peak / 2**30:.2f} GiB"


def rate(run: RunContext, key: str) -> str:
    """Return `samples_per_second` or `tokens_per_second`, say."""
    return _plain(run.compute.get(key))


def operations(run: RunContext) -> str:
    """Return the useful operations of training; recomputation is not counted."""
    flops = number(run.compute.get("flops"))
    if flops is None:
        return UNKNOWN
    for size, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP")):
        if flops >= size:
            return f"{flops / size:,.2f} {name}"
    return f"{flops / 1e9:,.3f} GFLOP"


def share_of_peak(run: RunContext) -> str:
    """Return which share of the device's dense rate was used."""
    share, peak = number(run.compute.get("share_of_peak")), number(run.compute.get("peak_tflops"))
    if share is None:
        return f"{UNKNOWN}: the device's peak is not known" if run.compute else UNKNOWN
    return f"{share:.1%}" + (f" of {peak:g} TFLOP/s" if peak is not None else "")


def energy(run: RunContext) -> str:
    """Return the energy, or why it is unknown."""
    found = mapping(run.compute.get("energy"))
    kwh, carbon = number(found.get("kwh")), number(found.get("co2_kg"))
    if kwh is None:
        reason = text(found.get("unknown"))
        return f"{UNKNOWN}: {reason}" if reason else UNKNOWN
    covers = text(found.get("covers"))
    about = [f"about {carbon:.3g} kg CO2"] if carbon is not None else []
    about += [covers] if covers else []
    return f"{kwh:.4g} kWh" + (f" ({'; '.join(about)})" if about else "")


def money(run: RunContext) -> str:
    """Return the price at the recipe's price an hour."""
    found = mapping(run.compute.get("money"))
    amount, price = number(found.get("amount")), number(found.get("price_per_hour"))
    if amount is None:
        return f"{UNKNOWN}: set compute.price_per_hour" if run.compute else UNKNOWN
    currency = text(found.get("currency"))
    return f"{amount:,.2f} {currency}" + (f" at {price:g} an hour" if price is not None else "")


def facts(run: RunContext) -> list[tuple[str, str]]:
    """Return every figure with its name."""
    source = text(run.compute.get("peak_source"))
    rows = [
        ("device", text(run.compute.get("device")) or UNKNOWN),
        ("time", _time(run)),
        ("steps", _plain(run.compute.get("steps"))),
        ("samples seen", _plain(run.compute.get("samples"))),
        ("tokens seen", _plain(run.compute.get("tokens"))),
        ("samples a second", rate(run, "samples_per_second")),
        ("tokens a second", rate(run, "tokens_per_second")),
        ("operations", operations(run)),
        ("share of peak", share_of_peak(run)),
        ("peak memory", memory(run)),
        ("energy", energy(run)),
        ("cost", money(run)),
    ]
    return [*rows, *([("source of the peak", source)] if source else [])]


HEADER = ("device", "time", "samples/s", "tokens/s", "operations", "share of peak", "peak memory", "energy", "cost")


def cells(run: RunContext) -> list[str]:
    """Return the figures of `HEADER` in short."""
    return [
        text(run.compute.get("device")) or UNKNOWN,
        hours(run),
        rate(run, "samples_per_second"),
        rate(run, "tokens_per_second"),
        operations(run),
        *(said.split(":")[0].split(" (")[0] for said in (share_of_peak(run), memory(run), energy(run), money(run))),
    ]


def _time(run: RunContext) -> str:
    seconds, sessions = number(run.compute.get("seconds")), number(run.compute.get("sessions"))
    if seconds is None:
        return UNKNOWN
    parts = f", in {sessions:g} sessions" if sessions is not None and sessions > 1 else ""
    return f"{seconds / 3600:.3f} h ({seconds:,.0f} s{parts})"


def _plain(value: object) -> str:
    found = number(value)
    if found is None:
        return UNKNOWN
    return f"{found:,.2f}".rstrip("0").rstrip(".")
