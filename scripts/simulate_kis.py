"""Serve a simulated Korean market over KIS's REST and WebSocket protocols on loopback. The first line on stdout is one
JSON object with the addresses.

SIGTERM or Ctrl-C end it cleanly. docs/simulator.md says what the market is and which signal is planted in it.
"""

import argparse
import asyncio
import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.kis.master import FOLDER
from pipeline.kis.simulator.clock import Clock, moment
from pipeline.kis.simulator.faults import FaultError, load
from pipeline.kis.simulator.gate import Quota, Tokens
from pipeline.kis.simulator.market import SIGNAL, Market
from pipeline.kis.simulator.server import Options, Server, serve
from pipeline.kis.simulator.stream import Stream, StreamOptions

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with one sentence instead of the usage."""
        self.exit(2, f"simulate_kis: {message}; --help lists the options\n")


def _at_least(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
        return value

    read.__name__ = getattr(kind, "__name__", "number")
    return read


def _above(least: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not value > least:
            raise argparse.ArgumentTypeError(f"expected more than {least}, got {text}")
        return value

    read.__name__ = "float"
    return read


def _options() -> argparse.Namespace:
    parser = _Parser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    port, count, positive = _at_least(0, int), _at_least(1, int), _at_least(0.0, float)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--rest-port", type=port, default=0, help="0 is any free port")
    parser.add_argument("--ws-port", type=port, default=0, help="of the WebSocket; 0 is any free port")
    parser.add_argument(
        "--layout", choices=("legacy", "current"), default="current", help="frames before or since 2026-09-14"
    )
    parser.add_argument(
        "--second-session",
        choices=("refuse", "kick"),
        default="refuse",
        help="a second WebSocket of an app key, or the first",
    )
    parser.add_argument("--registrations", type=count, default=41, help="subscriptions of one WebSocket")
    parser.add_argument("--ping", type=_above(0.0), default=100.0, help="seconds between PINGPONGs")
    parser.add_argument("--seed", type=int, default=7, help="seed of the market")
    parser.add_argument("--symbols", type=count, default=100, help="listings, in blocks of 20 that hold everything")
    parser.add_argument(
        "--signal", type=float, default=SIGNAL, help="strength of the planted signal (kappa); 0 plants none"
    )
    parser.add_argument(
        "--day-ends",
        choices=("close", "evening"),
        default="close",
        help="whether bars of KRX (J) hold its after-market, too: evening",
    )
    parser.add_argument("--quota", type=port, default=200, help="calls a second for each app key; 0 is no limit")
    parser.add_argument("--window", choices=("sliding", "fixed"), default="sliding", help="how that second is measured")
    parser.add_argument(
        "--clock", help="ISO time (KST without a zone) at which the market stands, or starts with --speed; default now"
    )
    parser.add_argument("--speed", type=positive, help="simulated seconds a second; default 0 with --clock, else 1")
    parser.add_argument("--faults", type=Path, help="YAML file of faults and their rates")
    parser.add_argument(
        "--fault", action="append", default=[], metavar="NAME=VALUE", help="one fault more, such as reset=0.01"
    )
    parser.add_argument("--paper", action="store_true", help="refuse what KIS's paper server does not have")
    parser.add_argument("--token-gap", type=positive, default=60.0, help="seconds in which no second token is issued")
    parser.add_argument(
        "--token-same", type=positive, default=21600.0, help="seconds in which the same token comes again"
    )
    parser.add_argument("--with-parent", action="store_true", help="end when the starting process ends (Linux)")
    return parser.parse_args()


def _follow_parent(parent: int) -> None:
    if ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM) != 0 or os.getppid() != parent:
        raise SystemExit("simulate_kis: the starting process is gone")


def _listen(host: str, *ports: int) -> list[socket.socket]:
    """Return a listening socket for each port. Raises OSError with the port in its text."""
    listeners: list[socket.socket] = []
    for port in ports:
        try:
            listeners.append(socket.create_server((host, port), backlog=256))
        except (OSError, OverflowError) as error:
            for listener in listeners:
                listener.close()
            raise OSError(f"cannot listen on {host}:{port}: {error}") from None
    return listeners


def _announce(server: Server, rest_at: socket.socket, ws_at: socket.socket) -> None:
    today = server.market.today()
    gone = [item.symbol for item in server.market.listings if item.delisted is not None and item.delisted <= today]
    (host, port), ws_port = rest_at.getsockname()[:2], ws_at.getsockname()[1]
    rest, ws = f"http://{host}:{port}", f"ws://{host}:{ws_port}"
    first = {"rest": rest, "ws": ws, "master": rest + FOLDER, "pid": os.getpid(), "delisted": gone}
    print(json.dumps(first), flush=True)


def main() -> int:
    """Start the server and serve until told to stop."""
    parent, options = os.getppid(), _options()
    if options.with_parent and not sys.platform.startswith("linux"):
        print("simulate_kis: --with-parent needs Linux (prctl); leave it out elsewhere", file=sys.stderr)
        return 2
    if options.with_parent:
        _follow_parent(parent)
    try:
        start = moment(options.clock) if options.clock else None
        speed = options.speed if options.speed is not None else 0.0 if start else 1.0
        faults = load(options.faults, options.fault)
        market = Market(
            options.seed, options.symbols, signal=options.signal, clock=Clock(start, speed), day_ends=options.day_ends
        )
    except (FaultError, ValueError) as error:
        print(f"simulate_kis: {error}", file=sys.stderr)
        return 2
    try:
        rest_at, ws_at = _listen(options.host, options.rest_port, options.ws_port)
    except OSError as error:
        print(f"simulate_kis: {error}", file=sys.stderr)
        return 2
    tokens = Tokens(gap=options.token_gap, same=options.token_same)
    calls = options.quota if faults.quota is None else faults.quota
    quota = Quota(calls, faults.window or options.window)
    server = Server(market, Options(quota, tokens, faults, options.paper))
    heard = StreamOptions(
        server.options.approvals, options.layout, options.second_session, options.registrations, options.ping
    )
    places = [(server.application(), rest_at), (Stream(market, heard).application(), ws_at)]
    asyncio.run(serve(places, lambda: _announce(server, rest_at, ws_at)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
