"""Why a target may or may not be reached: `restunnel-node policy check`."""

from __future__ import annotations

from pathlib import Path

from restunnel_protocol import ConnectFailReason, Rule, Target
from restunnel_protocol.program.errors import ProgramError

from .dialer import Dialer, DialError
from .policy import OwnerPolicy
from .resolver import Resolver


async def explain(target: Target, path: Path, rules: tuple[Rule, ...]) -> tuple[list[str], bool]:
    """A line for each address of the target, and whether any may be dialled.

    Raises `ProgramError` for a name that leads nowhere.
    """
    policy = OwnerPolicy(path, rules)
    try:
        addresses = await Dialer(policy.current, Resolver()).addresses(target)
    except DialError as error:
        if error.reason is not ConnectFailReason.NOT_ALLOWED:
            raise ProgramError(f"no verdict: {error.detail}") from error
        return [f"refused: {error.detail}"], False
    name = target.host if isinstance(target.host, str) else None
    verdicts = [
        (address, policy.current().judge(address, target.port, name))
        for address in dict.fromkeys(addresses)
    ]
    lines = [
        f"{'allowed' if verdict.allowed else 'refused'}: {address}: {verdict.reason}"
        for address, verdict in verdicts
    ]
    return lines, any(verdict.allowed for _, verdict in verdicts)
