"""Tables. Times are seconds since the epoch on the scheduler's steady clock; JSON columns hold wire models.

A job is one row with counters that every transaction keeps true; a task is one small row; an attempt holds what it gave.
``tasks`` and ``attempts`` are clustered by (job_seq, task_index), so the work of one job lies together.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    literal_column,
    text,
    true,
)

metadata = MetaData()

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("token_hash", Text, nullable=False, unique=True),
    Column("facts", Text, nullable=False),
    Column("offer", Text, nullable=False),
    Column("offered_at", Float, nullable=False),
    Column("enrolled_at", Float, nullable=False),
    Column("last_seen_at", Float),
    Column("incarnation", Text, nullable=False, server_default=""),
    Column("past_incarnation", Text, nullable=False, server_default=""),
    Column("seq", Integer, nullable=False, server_default="0"),
    Column("draining", Boolean, nullable=False, server_default=false()),
    Column("loopback", Boolean, nullable=False, server_default=false()),
)

jobs = Table(
    "jobs",
    metadata,
    Column("job_seq", Integer, primary_key=True, autoincrement=True),
    Column("job_id", Text, nullable=False, unique=True),
    Column("idempotency_key", Text, unique=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("requirements", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("cancel_wanted", Boolean, nullable=False, server_default=false()),
    Column("submitted_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("total", Integer, nullable=False),
    Column("queued", Integer, nullable=False),
    Column("active", Integer, nullable=False, server_default="0"),
    Column("succeeded", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("cancelled", Integer, nullable=False, server_default="0"),
    Column("duration_sum_s", Float, nullable=False, server_default="0"),
    Column("duration_count", Integer, nullable=False, server_default="0"),
    # Whether any of its tasks has rows in ``checkpoints`` or ``notes``: those of all others are not looked for.
    Column("has_saves", Boolean, nullable=False, server_default=false()),
    sqlite_autoincrement=True,
)
Index(
    "jobs_waiting",
    jobs.c.priority.desc(),
    jobs.c.job_seq,
    sqlite_where=jobs.c.queued > 0,
    postgresql_where=jobs.c.queued > 0,
)
JOB_WAITING = jobs.c.queued > literal_column("0")
"""Written out, not bound, as TASK_QUEUED."""
Index("jobs_by_state", jobs.c.state, jobs.c.job_seq)

tasks = Table(
    "tasks",
    metadata,
    Column(
        "job_seq",
        Integer,
        ForeignKey("jobs.job_seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("epoch", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("finish_seq", Integer),
    Column("reason", Text),
    Column("finished_at", Float),
    sqlite_with_rowid=False,
)
_QUEUED = text("state = 'QUEUED'")
Index(
    "tasks_queued",
    tasks.c.job_seq,
    tasks.c.state,  # always the same here, but it makes SQLite prefer this index to the primary key
    tasks.c.task_index,
    sqlite_where=_QUEUED,
    postgresql_where=_QUEUED,
)
TASK_QUEUED = tasks.c.state == literal_column("'QUEUED'")
"""Written out, not bound: only so does SQLite see that the partial index serves."""
_FINISHED = text("finish_seq IS NOT NULL")
Index(
    "tasks_finished", tasks.c.job_seq, tasks.c.finish_seq, sqlite_where=_FINISHED, postgresql_where=_FINISHED
)

attempts = Table(
    "attempts",
    metadata,
    Column(
        "job_seq",
        Integer,
        ForeignKey("jobs.job_seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("node_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("live", Boolean, nullable=False, server_default=true()),
    Column("leased_at", Float, nullable=False),
    Column("lease_expires_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("reason", Text),
    Column("exit_code", Integer),
    Column("encoding", Text),
    Column("result_inline", LargeBinary),
    Column("result_blob", Text),
    Column("result_size_bytes", Integer),
    Column("error", Text),
    Column("artifacts", Text),
    Column("usage", Text),
    Column("resumed", Text),
    sqlite_with_rowid=False,
)
# As each engine writes ``attempts.c.live`` in a query: SQLite uses a partial index only where it finds the same words.
_LIVE, _LIVE_ON_SQLITE = text("live"), text("live = 1")
Index("attempts_live_by_node", attempts.c.node_id, sqlite_where=_LIVE_ON_SQLITE, postgresql_where=_LIVE)
Index(
    "attempts_live_by_expiry",
    attempts.c.lease_expires_at,
    sqlite_where=_LIVE_ON_SQLITE,
    postgresql_where=_LIVE,
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column(
        "job_seq",
        Integer,
        ForeignKey("jobs.job_seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("stream", Text, primary_key=True),
    Column("start", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column(
        "job_seq",
        Integer,
        ForeignKey("jobs.job_seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("manifest", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("saved_at", Float, nullable=False),
    sqlite_with_rowid=False,
)

notes = Table(
    "notes",
    metadata,
    Column(
        "job_seq",
        Integer,
        ForeignKey("jobs.job_seq", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("task_index", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("progress", Text),
    Column("refused", Text),
    sqlite_with_rowid=False,
)

keys = Table(
    "keys",
    metadata,
    Column("key_hash", Text, primary_key=True),
    Column("label", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)
