"""Enrolled machines."""

import re
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from idle_accelerator.errors import Conflict, InvalidInput, NotFound
from idle_accelerator.scheduler.store.schema import attempts, nodes
from idle_accelerator.wire.ids import NODE_ID_PATTERN
from idle_accelerator.wire.nodes import NodeFacts, Offer

_NAME_LENGTH = 180
"""Leaves room for the number within the length of a Text."""
_LIKE_AN_ID = re.compile(NODE_ID_PATTERN)


def add_node(
    connection: Connection, *, node_id: str, token_hash: str, facts: NodeFacts, loopback: bool, now: float
) -> str:
    """Enrols a machine; returns its name, made unique by a number where the wanted one is taken.

    A name never looks like an id, so that nobody is addressed by another's.
    """
    wanted = facts.name[:_NAME_LENGTH] or "node"
    if _LIKE_AN_ID.match(wanted):
        wanted = f"node-{wanted}"
    taken = set(
        connection.execute(
            select(nodes.c.name).where(nodes.c.name.startswith(wanted, autoescape=True))
        ).scalars()
    )
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    connection.execute(
        insert(nodes),
        {
            "node_id": node_id,
            "name": name,
            "token_hash": token_hash,
            "facts": facts.model_copy(update={"name": name}).model_dump_json(),
            "offer": Offer(lending="offline").model_dump_json(),
            "offered_at": now,
            "enrolled_at": now,
            "loopback": loopback,
        },
    )
    return name


def node_by_token(connection: Connection, token_hash: str) -> Row[Any] | None:
    return connection.execute(select(nodes).where(nodes.c.token_hash == token_hash)).one_or_none()


def list_nodes(connection: Connection) -> list[Row[Any]]:
    """Every node with the number of attempts it holds, by name."""
    held = (
        select(attempts.c.node_id, func.count().label("running"))
        .where(attempts.c.live)
        .group_by(attempts.c.node_id)
        .subquery()
    )
    query = select(nodes, func.coalesce(held.c.running, 0).label("running")).select_from(
        nodes.outerjoin(held, held.c.node_id == nodes.c.node_id)
    )
    return list(connection.execute(query.order_by(nodes.c.name)).all())


def find_node(connection: Connection, name_or_prefix: str) -> Row[Any]:
    """By name, id or unique prefix of an id. Raises NotFound or Conflict (ambiguous)."""
    if not name_or_prefix:
        raise InvalidInput(
            "an empty name names no node.", field="node", hint="List nodes with: idlectl nodes"
        )
    rows = list_nodes(connection)
    exact = [row for row in rows if name_or_prefix in (row.name, row.node_id)]
    found = exact or [row for row in rows if row.node_id.startswith(name_or_prefix)]
    if not found:
        raise NotFound(
            f"there is no node {name_or_prefix!r}.", field="node", hint="List nodes with: idlectl nodes"
        )
    if len(found) > 1:
        raise Conflict(
            f"more than one node begins with {name_or_prefix!r}.", field="node", hint="Give more characters."
        )
    return found[0]


def set_draining(connection: Connection, node_id: str, *, draining: bool) -> None:
    connection.execute(update(nodes).where(nodes.c.node_id == node_id).values(draining=draining))


def remove_node(connection: Connection, node_id: str) -> None:
    """Raises Conflict while the node holds live attempts. Its finished attempts stay in the history."""
    held = connection.execute(
        select(func.count()).select_from(attempts).where(and_(attempts.c.node_id == node_id, attempts.c.live))
    ).scalar_one()
    if held:
        raise Conflict(
            f"the node holds {held} attempt(s).",
            field="node",
            hint="Drain it first, and wait until they have ended.",
        )
    connection.execute(delete(nodes).where(nodes.c.node_id == node_id))
