"""Instruments from what ingest left in the lake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.receipt import Receipt
from pipeline.strategies.declare import StrategyError
from pipeline.tradable import Listing, listing

from .instrument import Instrument, instruments
from .section import AccountSection


def of_receipt(
    directory: str | Path, account: AccountSection, interval: str, symbols: Sequence[str] = ()
) -> list[Instrument]:
    """Lay out the bars of a receipt, one instrument a symbol in the order of their codes; symbols : empty = all.

    Raises StrategyError for symbols and intervals that are not there, and for sources that have closes only.
    """
    receipt = Receipt.load(directory)
    if receipt.close_only:
        raise StrategyError(
            f"expected bars with open, high and low, got closes only from source '{receipt.source}'; stops cannot be "
            f"told by "
            "closes: the portfolio backtest trades them"
        )
    if interval not in receipt.intervals and not receipt.finer(interval):
        raise StrategyError(
            f"expected bars of one of {', '.join(receipt.intervals)} or of what they can be put together to, got "
            f"'{interval}' (optimize.interval); add it to ingest.intervals"
        )
    chosen = sorted(symbols or receipt.symbols)
    if unknown := [symbol for symbol in chosen if symbol not in receipt.symbols]:
        raise StrategyError(
            f"expected symbols among the {len(receipt.symbols)} that were ingested, got {', '.join(unknown)} "
            "(optimize.symbols); add them to ingest.symbols"
        )
    bars = receipt.bars(interval, symbols=chosen)
    found = listing(chosen, receipt.symbol_table())
    facts = {
        name: Listing((market,), (kind,), (gone,))
        for name, market, kind, gone in zip(chosen, found.markets, found.kinds, found.delisted)
    }
    return instruments(bars, account, venue=receipt.venue, interval=interval, actions=receipt.actions(), listing=facts)
