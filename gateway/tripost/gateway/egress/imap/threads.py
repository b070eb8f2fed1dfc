"""THREAD: which message answers which (RFC 5256 §3)

Promise  any references have a result, in time about linear in them; no message is
         its own ancestor, and every message appears once. Nothing recurses, however
         deep an exchange went.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Mail(msgspec.Struct, frozen=True):
    """`number` is what it is called in the answer; `sent` seconds since 1970."""

    number: int
    sent: int
    subject: str
    reply: bool
    id: bytes
    references: Sequence[bytes]


class _Node:
    __slots__ = ("children", "mail", "parent")

    def __init__(self, mail: Mail | None = None) -> None:
        self.mail = mail
        self.parent: _Node | None = None
        self.children: list[_Node] = []


def ordered_subject(mails: Sequence[Mail]) -> bytes:
    """ORDEREDSUBJECT: messages of one subject, by date, below the first of them."""
    groups: dict[str, list[Mail]] = {}
    for mail in sorted(mails, key=lambda one: (one.sent, one.number)):
        groups.setdefault(mail.subject, []).append(mail)
    found: list[bytes] = []
    for some in sorted(groups.values(), key=lambda group: (group[0].sent, group[0].number)):
        first, rest = some[0].number, [one.number for one in some[1:]]
        if len(rest) > 1:
            found.append(b"(%d %b)" % (first, b"".join(b"(%d)" % one for one in rest)))
        else:
            found.append(b"(%b)" % b" ".join(b"%d" % one for one in (first, *rest)))
    return b"".join(found)


def references(mails: Sequence[Mail]) -> bytes:
    """REFERENCES."""
    roots = _pruned(_linked(mails))
    roots = _by_subject(_sorted(roots))
    return b"".join(map(_written, _sorted(roots)))


def _linked(mails: Sequence[Mail]) -> list[_Node]:
    """Step 1 and 2: every message below the one that it answers."""
    nodes: dict[bytes, _Node] = {}
    every: list[_Node] = []
    for mail in mails:
        node = nodes.get(mail.id) if mail.id else None
        if node is None or node.mail is not None:
            node = _Node()
            if mail.id and mail.id not in nodes:
                nodes[mail.id] = node
            every.append(node)
        node.mail = mail
        last: _Node | None = None
        for reference in mail.references:
            one = nodes.get(reference)
            if one is None:
                one = nodes[reference] = _Node()
                every.append(one)
            if last is not None and one.parent is None and one is not node and not _above(one, last):
                _put(one, last)
            last = one
        if node.parent is not None and node.parent is not last:  # what was guessed before is not so
            node.parent.children.remove(node)
            node.parent = None
        if last is not None and last is not node and node.parent is None and not _above(node, last):
            _put(node, last)
    return [node for node in every if node.parent is None]


def _above(node: _Node, other: _Node) -> bool:
    """Is `node` the other, or one of its ancestors?"""
    seen: _Node | None = other
    while seen is not None:
        if seen is node:
            return True
        seen = seen.parent
    return False


def _put(node: _Node, parent: _Node) -> None:
    if node.parent is not None:
        node.parent.children.remove(node)
    node.parent = parent
    parent.children.append(node)


def _pruned(roots: list[_Node]) -> list[_Node]:
    """Step 3: without the nodes of messages that are not here. Leaves first, for depth must not matter."""
    order: list[_Node] = []
    todo = list(roots)
    while todo:
        node = todo.pop()
        order.append(node)
        todo += node.children
    for node in reversed(order):
        children: list[_Node] = []
        for child in node.children:
            children += [child] if child.mail is not None else child.children
        node.children = children
    found: list[_Node] = []
    for root in roots:
        if root.mail is not None or len(root.children) > 1:
            found.append(root)
        else:
            found += root.children
    for root in found:
        root.parent = None
    return found


def _sent(node: _Node) -> tuple[int, int]:
    mail = node.mail
    if mail is None and node.children:
        mail = min((one.mail for one in node.children if one.mail is not None), key=lambda one: (one.sent, one.number))
    return (mail.sent, mail.number) if mail is not None else (0, 0)


def _sorted(roots: list[_Node]) -> list[_Node]:
    """Step 4 and 6: by date, at every level."""
    todo = list(roots)
    while todo:
        node = todo.pop()
        node.children.sort(key=_sent)
        todo += node.children
    return sorted(roots, key=_sent)


def _subject(node: _Node) -> tuple[str, bool]:
    mail = node.mail if node.mail is not None else node.children[0].mail
    return (mail.subject, mail.reply) if mail is not None else ("", False)


def _by_subject(roots: list[_Node]) -> list[_Node]:
    """Step 5: threads of the same subject become one."""
    table: dict[str, _Node] = {}
    for root in roots:
        subject, reply = _subject(root)
        if not subject:
            continue
        there = table.get(subject)
        if there is None or (there.mail is not None and root.mail is None) or (_subject(there)[1] and not reply):
            table[subject] = root
    found: list[_Node] = []
    for root in roots:
        subject, reply = _subject(root)
        there = table.get(subject, root)
        if there is root:
            found.append(root)
        elif root.mail is None and there.mail is None:
            there.children += root.children
        elif there.mail is None or (reply and not _subject(there)[1]):
            there.children.append(root)
        else:  # both are messages, neither answers the other
            found = [one for one in found if one is not there]
            both = _Node()
            both.children = [there, root]
            table[subject] = both
            found.append(both)
    return _replaced(found, table)


def _replaced(found: list[_Node], table: dict[str, _Node]) -> list[_Node]:
    """A thread that was put below a new top appears there only."""
    inside = {id(child) for node in table.values() if node.mail is None for child in node.children}
    return [node for node in found if id(node) not in inside]


def _written(root: _Node) -> bytes:
    """(1 2 (3)(4 5)): a chain in one pair of parentheses, branches in one each."""
    out: list[bytes] = []
    todo: list[_Node | bytes] = [b")", root, b"("]
    chain = False
    while todo:
        one = todo.pop()
        if isinstance(one, bytes):
            out.append(one)
            chain = False
            continue
        if one.mail is not None:
            out.append(b" %d" % one.mail.number if chain else b"%d" % one.mail.number)
            chain = True
        if len(one.children) == 1 and one.mail is not None:
            todo.append(one.children[0])
        elif one.children:
            if chain:
                out.append(b" ")
            for child in reversed(one.children):
                todo += [b")", child, b"("]
    return b"".join(out)
