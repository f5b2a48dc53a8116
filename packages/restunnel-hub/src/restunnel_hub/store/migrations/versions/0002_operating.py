"""Notes, drain and limits of nodes; traffic, clients, events, properties."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("nodes", sa.Column("note", sa.String, nullable=False, server_default=""))
    op.add_column(
        "nodes", sa.Column("drained", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.add_column("nodes", sa.Column("max_streams", sa.Integer))
    for name in ("max_day", "max_month", "bandwidth"):
        op.add_column("nodes", sa.Column(name, sa.BigInteger))
    op.create_table(
        "traffic",
        sa.Column("node_id", sa.String, primary_key=True),
        sa.Column("day", sa.String, primary_key=True),
        sa.Column("received", sa.BigInteger, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("streams", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "clients",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("password_hash", sa.LargeBinary, unique=True),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("last_seen", sa.Float),
        sa.Column("received", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("sent", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("streams", sa.BigInteger, nullable=False, server_default="0"),
    )
    op.create_table(
        "events",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("node_id", sa.String, nullable=False),
        sa.Column("node", sa.String, nullable=False),
        sa.Column("detail", sa.String, nullable=False),
        sa.Column("count", sa.Integer, nullable=False, server_default="1"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_kind", "events", ["kind"])
    op.create_table(
        "properties",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
