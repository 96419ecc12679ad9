"""Every bound of the wire in one place. Bytes and seconds, unless the name says otherwise."""

SPEC_BYTES_MAX = 128 * 1024
"""A job's specification as sent: it travels with every lease."""

PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
"""The server's `max_payload`."""

INLINE_VALUE_BYTES_MAX = 64 * 1024
"""A task's value above this becomes a blob."""

CHUNK_BYTES_MAX = 512 * 1024
"""A lender reports results in parts whose values add up to at most about this."""

STDERR_TAIL_BYTES_MAX = 8 * 1024

LOG_PIECE_BYTES_MAX = 8 * 1024
"""Of a task's log in one message."""

LOG_BYTES_MAX = 1 << 40
"""Of a whole log: where a piece of it may stand."""

LIST_ENTRIES_MAX = 12_000
"""Of any list in a message, before it is looked at: a few bytes may announce billions, and lists
in lists so many each, for which a reader sets memory aside."""

ARRAY_COUNT_MAX = 10_000_000
ARRAY_RANGES_MAX = 10_000
"""Of an array that is made of some of its indices."""

FAILED_RANGES_MAX = 1_000
"""Of failed tasks that a job's last word names."""

FAILED_RANGES_TOLD_MAX = 100
"""The same, of an answer to a question."""

EACH_MAX = 1_000
"""Tasks of an array that each have a command line of their own."""

GANG_TASKS_MAX = 256
CHUNK_RESULTS_MAX = 1_000

ARGV_ENTRIES_MAX = 256
ARGV_ENTRY_CHARS_MAX = 32 * 1024
ENV_ENTRIES_MAX = 64
INPUTS_MAX = 64
OUTPUTS_MAX = 64
RETRIES_MAX = 10
REPLICAS_MAX = 7
PRIORITY_MAX = 100
LABELS_MAX = 32
AFTER_MAX = 64

OFFERED_CORES_MAX = 4096
OFFERED_BYTES_MAX = 1 << 50
"""Of memory, disk or GPU memory: sums over a fleet stay exact."""

STAND_S_MAX = 3600.0
"""For so long a lender may be told to keep a pull waiting."""

OFFERED_STAY_S_MAX = 1e12
"""Beyond any calendar's end."""

MEASURED_S_MAX = 1e12
"""The same, of what a task took: squares of it and their sums stay numbers."""

OFFERED_NETS_MAX = 1024
"""Grants with a network that an offer names."""

OFFERED_BLOBS_MAX = 64
"""Cached inputs that an offer names."""

OFFERED_BLOB_BYTES_MIN = 1 << 20
"""A smaller input is fetched sooner than it is worth looking for."""

MEMORY_BYTES_MIN = 1024 * 1024
MEMORY_BYTES_MAX = 1 << 40
TIME_S_MAX = 7 * 86_400.0
OUTPUT_BYTES_MAX = 64 * 1024 * 1024
SCRATCH_BYTES_MAX = 1 << 40

CHECKPOINT_BYTES_MAX = 64 * 1024 * 1024
"""Of one task's checkpoint as an archive, which its lender holds in memory."""

CHECKPOINTS_MAX = 64
"""In one report."""

NOT_FOR_MAX = 64
"""Lenders that a lease names as not to take it."""

SEALED_TO_MAX = 64
"""Lenders that a job may be sealed to: each has its key in the specification."""

BLOB_BYTES_MAX = 1 << 40

ENROL_BYTES_MAX = 16 * 1024
"""Of a stranger's message, headers included."""

ENROL_CLASSES_MAX = 96
"""That one token may be asked for: as many as `ENROL_BYTES_MAX` holds, however long their names."""

TOKEN_CLASSES_MAX = 200
"""That a lender's token names, with their submitters: a server reads 64 KiB of first words."""

CONTENT_KEPT_S = 16 * 86_400.0
"""Each content is gone so long after it was stored, however often it is read."""

WEEK_S = 7 * 86_400.0
"""What is stored in one of these is stored anew in the next: it lives for more than another."""

WEEK_MAX = 1_000_000
"""Since the epoch: far beyond what any clock says."""

BOUND_SUBMITTERS_MAX = 256
"""Whom the operator names that one lender may work for."""

BOUND_POOLS_MAX = 64

PIECE_BYTES = 512 * 1024
"""Of a content, that are one message in its submitter's bucket; all pieces but the last have it."""

QUEUE_S_MAX = 7 * 86_400.0
"""How long a job may wait: less than JOBS keeps it, so that a replay always sees a live job."""
