"""The first shape of the store."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_seq", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("requirements", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("cancel_wanted", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("submitted_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("queued", sa.Integer(), nullable=False),
        sa.Column("active", sa.Integer(), server_default="0", nullable=False),
        sa.Column("succeeded", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("cancelled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("duration_sum_s", sa.Float(), server_default="0", nullable=False),
        sa.Column("duration_count", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("job_seq"),
        sa.UniqueConstraint("idempotency_key"),
        sa.UniqueConstraint("job_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("jobs_by_state", "jobs", ["state", "job_seq"], unique=False)
    op.create_index(
        "jobs_waiting",
        "jobs",
        [sa.literal_column("priority DESC"), "job_seq"],
        unique=False,
        sqlite_where=sa.text("queued > 0"),
        postgresql_where=sa.text("queued > 0"),
    )

    op.create_table(
        "keys",
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash"),
    )
    op.create_table(
        "nodes",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("offer", sa.Text(), nullable=False),
        sa.Column("offered_at", sa.Float(), nullable=False),
        sa.Column("enrolled_at", sa.Float(), nullable=False),
        sa.Column("last_seen_at", sa.Float(), nullable=True),
        sa.Column("incarnation", sa.Text(), server_default="", nullable=False),
        sa.Column("past_incarnation", sa.Text(), server_default="", nullable=False),
        sa.Column("seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("draining", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("loopback", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
        sa.UniqueConstraint("name"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_table(
        "attempts",
        sa.Column("job_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("live", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("leased_at", sa.Float(), nullable=False),
        sa.Column("lease_expires_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("encoding", sa.Text(), nullable=True),
        sa.Column("result_inline", sa.LargeBinary(), nullable=True),
        sa.Column("result_blob", sa.Text(), nullable=True),
        sa.Column("result_size_bytes", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("artifacts", sa.Text(), nullable=True),
        sa.Column("usage", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_seq"], ["jobs.job_seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_seq", "task_index", "epoch"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "attempts_live_by_expiry",
        "attempts",
        ["lease_expires_at"],
        unique=False,
        sqlite_where=sa.text("live = 1"),
        postgresql_where=sa.text("live"),
    )
    op.create_index(
        "attempts_live_by_node",
        "attempts",
        ["node_id"],
        unique=False,
        sqlite_where=sa.text("live = 1"),
        postgresql_where=sa.text("live"),
    )

    op.create_table(
        "log_chunks",
        sa.Column("job_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("start", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["job_seq"], ["jobs.job_seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_seq", "task_index", "epoch", "stream", "start"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tasks",
        sa.Column("job_seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("task_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("losses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("finish_seq", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(["job_seq"], ["jobs.job_seq"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_seq", "task_index"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "tasks_finished",
        "tasks",
        ["job_seq", "finish_seq"],
        unique=False,
        sqlite_where=sa.text("finish_seq IS NOT NULL"),
        postgresql_where=sa.text("finish_seq IS NOT NULL"),
    )
    op.create_index(
        "tasks_queued",
        "tasks",
        ["job_seq", "state", "task_index"],
        unique=False,
        sqlite_where=sa.text("state = 'QUEUED'"),
        postgresql_where=sa.text("state = 'QUEUED'"),
    )


def downgrade() -> None:

    op.drop_table("tasks")
    op.drop_table("log_chunks")

    op.drop_table("attempts")
    op.drop_table("nodes")
    op.drop_table("keys")

    op.drop_table("jobs")
