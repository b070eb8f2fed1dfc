"""whose mail is where, and by which rules

What the configuration and the accounts say about local mailboxes, for the
router (RCPT), local delivery and POP3: users, aliases, folders of address
extensions, quotas, retention.

Order    an account's own quota rule, else `[local.mailbox."x"]`, else `[local]`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from tripost.delivery.mailbox.maildir import Place
from tripost.delivery.mailbox.policy import Policy, quota_rule
from tripost.delivery.mailbox.uids import folder_name, folder_names
from tripost.delivery.mailbox.usage import Usage
from tripost.delivery.routing import Refusal, Router
from tripost.gateway.settings import Config, Mailbox
from tripost.gateway.wiring_delivery import rules_of

FULL = "the mailbox is full"


class Mailboxes:
    """`exists` and `rule` ask the accounts: is there one, and what is its userdb_quota_rule ("" for none)?"""

    def __init__(
        self, config: Config, exists: Callable[[str], bool], rule: Callable[[str], str] = lambda account: ""
    ) -> None:
        self._local = config.local
        self._exists = exists
        self._rule = rule
        self.folder = os.path.join(config.state, "mail")
        self.usage: Usage | None = None  # the delivery's, once there is one
        self._tables: dict[str, Mailbox] = {name.lower(): table for name, table in self._local.mailbox.items()}
        self.router = Router(
            local_domains=frozenset(domain.lower() for domain in self._local.domains),
            users=lambda address: address if exists(address) else None,
            relay_domains=frozenset(domain.lower() for domain in config.relay.domains),
            rules=rules_of(config),
            postmaster=self._local.postmaster,
            separator=self._local.separator,
            aliases={name.lower(): targets for name, targets in self._local.aliases.items()},
            catch_all={domain.lower(): to for domain, to in self._local.catch_all.items()},
            keeps=lambda account, detail: bool(self._extension(account, detail)),
            full=self.full,
        )

    def become(self, other: Mailboxes) -> None:
        """Decide as `other` does, from now on; whoever asks us or our router need not know."""
        self._local, self._tables = other._local, other._tables
        other.usage = self.usage
        self.router.become(other.router)

    def policy(self, account: str) -> Policy:
        local, table = self._local, self._tables.get(account.lower(), Mailbox())
        policy = Policy(
            quota=local.quota if table.quota is None else table.quota,
            quota_messages=local.quota_messages if table.quota_messages is None else table.quota_messages,
            reject=local.quota_over == "reject",
            retention=local.retention if table.retention is None else table.retention,
            max_messages=table.max_messages,
            one_shot=table.one_shot,
        )
        rule = self._rule(account)
        try:
            return quota_rule(policy, rule) if rule else policy
        except ValueError:  # `tripost user` writes none such; a hand did
            return policy

    @property
    def expire(self) -> str:
        """EXPIRE's argument before anybody has logged in (RFC 2449 §6.7): the least that any mailbox is promised."""
        every = {self.policy("").expire()} | {self.policy(name).expire() for name in self._tables}
        days = [int(one) for one in every if one != "NEVER"]
        least = str(min(days)) if days else "NEVER"
        return least if len(every) == 1 else f"{least} USER"

    def locate(self, address: str) -> Place | None:
        """The mailbox of a local recipient. The postmaster's is somebody's, so that its mail is never refused."""
        account, detail = self.router.mailbox(address)
        if not account:
            return None
        return Place(account, self._extension(account, detail) if detail else "", self.policy(account))

    def _extension(self, account: str, detail: str) -> str:
        """The folder of that name, "" where the mailbox has none."""
        box = os.path.join(self.folder, folder_name(account))
        return next((one for one in folder_names(detail) if os.path.isdir(os.path.join(box, one))), "")

    def full(self, account: str) -> Refusal | None:
        """For RCPT: a mailbox that is known to be full. What is not known is found out at delivery."""
        policy = self.policy(account)
        if not policy.limited or self.usage is None:
            return None
        known = self.usage.known(os.path.join(self.folder, folder_name(account)))
        if known is None or not policy.full(known[0] + 1, known[1] + 1):
            return None
        return Refusal(552, "5.2.2", FULL) if policy.reject else Refusal(452, "4.2.2", FULL)
