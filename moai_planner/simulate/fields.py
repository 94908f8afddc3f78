"""Columns of the event loop's tables: what each number of a rank, a request, a unit and a lane is.

The loop's state is a few plain arrays so that compiled code passes them around for free; this file gives
their columns names. A *rank* is one scheduler with its own KV cache (a data-parallel rank, or one of the
batches a pipeline keeps in flight). A *unit* is a set of ranks that step together (one rank unless lockstep).
"""

from __future__ import annotations

# rank[r, …] int64: settings
MAX_SEQS, MAX_TOKENS, THRESHOLD, BLOCK_TOKENS, BLOCKS, GRANULE_TOKENS, GRANULE_BLOCKS, UNIT = range(8)
# … and state
STEP = 8  # virtual decode steps taken; a sequence that ends in m steps ends at STEP + m
DECODING = 9
RUNNING = 10  # decoding and partly prefilled sequences, what max_num_seqs limits
CONTEXT = 11  # KV tokens of the decoding sequences
USED = 12  # blocks held by one sequence alone
REFERENCED = 13  # hashed granules that some sequence holds
EVICTABLE = 14  # hashed granules nobody holds
OUTSTANDING = 15  # routed here and not finished
RUN_HEAD, RUN_TAIL, WAIT_HEAD, WAIT_TAIL, READY_HEAD, READY_TAIL, LRU_HEAD, LRU_TAIL = range(16, 24)
PARTIALS = 24  # sequences whose prompt is not finished
CHUNKS = 25  # prompt chunks in the step under way
CHUNK_TOKENS = 26
PREEMPTED = 27  # by the last schedule
JOINED = 28  # sequences that start decoding in the step under way without a prompt chunk of their own
WAITING = 29
PEAK_BLOCKS = 30
RANK_FIELDS = 31

# rank_f[r, …] float64
PAIRS, BASE_S, SLOPE_S = range(3)
RANK_FLOATS = 3

# request[i, …] int32
ISL, OSL, STATE, COMPUTED, OFFSET, GENERATED, GRANULES, PREVIOUS = range(8)
NEXT, RANK, HIT, PREEMPTIONS, PREFILL_RANK, LANE, PREFILLED_GRANULES, SESSION = range(8, 16)
REQUEST_FIELDS = 16
NEW, WAITS, PARTIAL, DECODES, REMOTE, LOADING, READY, DONE = range(8)  # STATE

# times[i, …] float64; FINISH holds the time of the last token while the request runs
START, ADMIT, FIRST, FINISH = range(4)
TIME_FIELDS = 4
# kv_times[i, …] float64, disaggregated lanes only
PREFILLED, KV_START, KV_DONE = range(3)
KV_TIME_FIELDS = 3

# unit_i[u, …] int64
FIRST_RANK, END_RANK, MODEL, INSTANCE, STEPS, BUSY, LOADS = range(7)
# unit_f[u, …] float64
NEXT_S, BEGIN_S, PAIR_S, KV_S, SLOWDOWN, FACTOR, BUSY_S, STEP_COUNT, ROW_S = range(9)

# lane[l, …] float64
ENTRY_POOL, DECODE_POOL, LATENCY_S, PATH_RATE, NIC_RATE, TOKEN_BYTES = range(6)
LANE_FIELDS = 6

# totals int64 and totals_f float64
INFLIGHT, FINISHED, RANDOM, EVENTS = range(4)
TOTALS = 4
ITL_COUNT, ITL_SUM, ITL_SQUARES, CLOCK, LOAD_CAP = range(5)
TOTAL_FLOATS = 5

# router policies
RANDOM_CHOICE, ROUND_ROBIN, LEAST_OUTSTANDING, POWER_OF_TWO, PREFIX_AWARE, SESSION_AFFINITY = range(6)
