"""Every metric that plinth has, declared once. The dashboard and the alerts in docker/observability are made of these.

A service declares its own in the same way, with prometheus_client's `Counter` and the like; gauges need a
`multiprocess_mode` that begins with `live`. Labels have few values: a route's template, never a path.
"""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
JOB_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)

# Requests. `route` is a template, or `unknown` where none matches; responses from the cache count as well.
REQUESTS = Counter("http_requests", "Responses.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "http_request_duration_seconds", "Time to the last byte.", ["method", "route"], buckets=SECONDS
)
IN_PROGRESS = Gauge("http_requests_in_progress", "Requests that are being answered.", multiprocess_mode="livesum")
QUERIES = Counter("http_request_queries", "Statements that requests ran.", ["route"])
DATABASE_SECONDS = Counter("http_request_database_seconds", "Time that requests waited for statements.", ["route"])

# The pools of connections: `changes` are transactions, `reads` are what runs outside of them.
POOL_SIZE = Gauge("database_pool_size", "Connections that a pool may have.", ["pool"], multiprocess_mode="livesum")
POOL_USED = Gauge("database_pool_used", "Connections in use.", ["pool"], multiprocess_mode="livesum")
POOL_WAITING = Gauge("database_pool_waiting", "Callers that wait for one.", ["pool"], multiprocess_mode="livesum")
POOL_WAIT_SECONDS = Histogram(
    "database_pool_wait_seconds", "Waits for a connection while all are in use.", ["pool"], buckets=SHORT_SECONDS
)

# `cache` is `response` or `value`; `result` is `memory`, `redis`, `miss` or `stale`.
CACHE_REQUESTS = Counter("cache_requests", "Look-ups in the cache, by the level that had it.", ["cache", "result"])
LIMIT_REFUSALS = Counter("limit_refusals", "Requests that a rate limit refused.", ["limit"])
SHED = Counter("http_requests_shed", "Requests that an overloaded process refused.", ["priority"])

# The queue is of the whole service. Its numbers are fetched for each scrape (see plinth/jobs/maintenance.py), so no
# process keeps them: what one process had once set would stay. Each replica reports the same: take the maximum.
QUEUE_JOBS = Gauge("job_queue_jobs", "Jobs by state.", ["queue", "state"], registry=None)
QUEUE_OLDEST_SECONDS = Gauge("job_queue_oldest_seconds", "Wait of the oldest ready job.", ["queue"], registry=None)
# `name` is that of the job: the labels `job` and `instance` are Prometheus's own, which renames those of others.
JOB_ATTEMPTS = Counter("job_attempts", "Attempts of jobs, by outcome.", ["name", "outcome"])
JOB_SECONDS_TAKEN = Histogram("job_duration_seconds", "Time that an attempt took.", ["name"], buckets=JOB_SECONDS)

# The processes.
LOOP_LAG_SECONDS = Histogram("event_loop_lag_seconds", "How late the event loop runs timers.", buckets=SHORT_SECONDS)
GC_PAUSE_SECONDS = Histogram("gc_pause_seconds", "Garbage collections.", ["generation"], buckets=SHORT_SECONDS)
CPU_SECONDS = Counter("service_cpu_seconds", "CPU time that the processes used.")
CPU_CORES = Gauge("service_cpu_cores", "Cores that the service may use.", multiprocess_mode="livemax")
MEMORY_BYTES = Gauge("service_resident_bytes", "Resident memory of the processes.", multiprocess_mode="livesum")
PROCESSES = Gauge("service_processes", "Processes by kind.", ["kind"], multiprocess_mode="livesum")
BUILD = Gauge("service_build_info", "Always 1.", ["version", "python"], multiprocess_mode="livemax")

METRICS = (
    REQUESTS,
    REQUEST_SECONDS,
    IN_PROGRESS,
    QUERIES,
    DATABASE_SECONDS,
    POOL_SIZE,
    POOL_USED,
    POOL_WAITING,
    POOL_WAIT_SECONDS,
    CACHE_REQUESTS,
    LIMIT_REFUSALS,
    SHED,
    QUEUE_JOBS,
    QUEUE_OLDEST_SECONDS,
    JOB_ATTEMPTS,
    JOB_SECONDS_TAKEN,
    LOOP_LAG_SECONDS,
    GC_PAUSE_SECONDS,
    CPU_SECONDS,
    CPU_CORES,
    MEMORY_BYTES,
    PROCESSES,
    BUILD,
)
