"""Checkpoints of tasks, and what running attempts say of themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("has_saves", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("attempts", sa.Column("resumed", sa.Text(), nullable=True))
    op.create_table(
        "checkpoints",
        sa.Column("job_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("saved_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_seq"], ["jobs.job_seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_seq", "task_index", "epoch", "step"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "notes",
        sa.Column("job_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Text(), nullable=True),
        sa.Column("refused", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_seq"], ["jobs.job_seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_seq", "task_index"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("notes")
    op.drop_table("checkpoints")
    op.drop_column("attempts", "resumed")
    op.drop_column("jobs", "has_saves")
