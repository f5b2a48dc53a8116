"""The owner's rules: `policy.toml`, written by `restunnel-node policy`, and the configuration.

A running node looks at the file's identity before each verdict, so a change
applies to the next connection without anybody telling the node.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import tomli_w

from restunnel_protocol import AddressError, ExitPolicy, Rule
from restunnel_protocol.program.errors import ExitCode, ProgramError
from restunnel_protocol.program.files import read_private, write_private

Action = Literal["allow", "deny"]


def parse_rules(section: Any, source: str) -> tuple[Rule, ...]:
    """Rules from `{allow = [...], deny = [...]}`. Raises `ProgramError` (usage)."""
    if not isinstance(section, dict) or set(section) - {"allow", "deny"}:
        raise ProgramError(
            f"{source}: the policy takes lists named allow and deny", code=ExitCode.USAGE
        )
    rules: list[Rule] = []
    for action in ("allow", "deny"):
        texts = section.get(action, [])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ProgramError(f"{source}: {action} is not a list of texts", code=ExitCode.USAGE)
        rules += (parse_rule(action, text, source) for text in texts)
    return tuple(rules)


def parse_rule(action: Action, text: str, source: str) -> Rule:
    """One rule. Raises `ProgramError` (usage)."""
    try:
        return Rule.parse(action, text)
    except AddressError as error:
        raise ProgramError(
            f"{source}: {error}",
            hint="as in 127.0.0.1:8000, [::1]:8000, 10.0.0.0/8, nas.local:443, *:25",
            code=ExitCode.USAGE,
        ) from error


class OwnerPolicy:
    """The exit policy in force: configured rules, and those of the policy file."""

    def __init__(self, path: Path, configured: tuple[Rule, ...] = ()) -> None:
        self._path = path
        self._configured = configured
        self._identity: tuple[int, ...] | None = (-1,)
        self._policy = ExitPolicy()

    def current(self) -> ExitPolicy:
        """The policy as of now. Raises `ProgramError` if the file is damaged."""
        identity = self._identify()
        if identity != self._identity:
            self._policy = ExitPolicy(self._configured + tuple(self.stored()))
            self._identity = identity
        return self._policy

    def configure(self, configured: tuple[Rule, ...]) -> None:
        """Other rules of the configuration, from the next verdict on."""
        self._configured = configured
        self._identity = (-1,)

    def stored(self) -> list[Rule]:
        """The rules of the file alone."""
        try:
            document = tomllib.loads(read_private(self._path).decode())
        except FileNotFoundError:
            return []
        except ValueError as error:
            raise ProgramError(
                f"the file {self._path} is damaged: {error}", hint="mend or remove it"
            ) from error
        return list(parse_rules(document, str(self._path)))

    def add(self, rule: Rule) -> None:
        """Add a rule to the file; the opposite rule for the same thing goes."""
        rules = [known for known in self.stored() if str(known) != str(rule)]
        self._save([*rules, rule])

    def remove(self, text: str) -> None:
        """Take a rule out of the file. Raises `ProgramError` if there is none such."""
        rules = self.stored()
        left = [rule for rule in rules if str(rule) != text]
        if len(left) == len(rules):
            raise ProgramError(
                f"no rule {text!r}", hint="see `restunnel-node policy show`", code=ExitCode.USAGE
            )
        self._save(left)

    def _identify(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _save(self, rules: list[Rule]) -> None:
        document = {
            action: [str(rule) for rule in rules if rule.action == action]
            for action in ("allow", "deny")
        }
        write_private(self._path, tomli_w.dumps(document).encode())
