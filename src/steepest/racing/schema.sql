-- The ledger of a race. What the clock said stands in tables of its own (clock, timings, events),
-- so that everything else can be compared bit by bit between two executions.

CREATE TABLE meta (
    key     TEXT PRIMARY KEY,
    value   TEXT NOT NULL                   -- JSON
);

CREATE TABLE arms (
    arm_id   INTEGER PRIMARY KEY,           -- from 0, in the order in which they were given
    label    TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL                  -- JSON: text, kind, name, values, schedule, source, space
);

CREATE TABLE trials (
    trial_id INTEGER PRIMARY KEY,
    arm_id   INTEGER NOT NULL REFERENCES arms,
    number   INTEGER NOT NULL,              -- from 0 within the arm; -1 for its defaults
    role     TEXT NOT NULL CHECK (role IN ('fixed', 'candidate', 'defaults')),
    round    INTEGER NOT NULL,              -- 0, then one more for every widening of the spaces
    point    TEXT,                          -- JSON: its place in the unit cube; NULL: not searched
    "values" TEXT NOT NULL,                 -- JSON: the hyperparameters of this setting
    UNIQUE (arm_id, number)
);

-- The setting of each tuned arm that went into the final stage. Written in one transaction with the
-- final runs: before it there is no run that may read the test data.
CREATE TABLE selections (
    arm_id   INTEGER PRIMARY KEY REFERENCES arms,
    trial_id INTEGER NOT NULL REFERENCES trials,
    score    REAL,                          -- mean of the validation metric; NULL: all diverged
    edges    TEXT NOT NULL                  -- JSON: where it lies at an end of its space
);

-- Each time that a verdict was made on more seeds than before.
CREATE TABLE looks (
    look  INTEGER PRIMARY KEY,              -- from 1
    seeds TEXT NOT NULL                     -- JSON: all seeds that it was made on, in their order
);

CREATE TABLE runs (
    run_id      TEXT PRIMARY KEY,
    position    INTEGER NOT NULL,           -- the order of execution
    trial_id    INTEGER NOT NULL REFERENCES trials,
    stage       TEXT NOT NULL CHECK (stage IN ('tuning', 'final')),
    rung        INTEGER NOT NULL DEFAULT 0, -- of successive halving; each starts from step 0
    wave        INTEGER NOT NULL DEFAULT 0, -- runs that were added together, in one transaction
    seed        INTEGER NOT NULL,
    steps       INTEGER NOT NULL,           -- planned
    steps_done  INTEGER NOT NULL DEFAULT 0, -- committed
    status      TEXT NOT NULL DEFAULT 'pending'
                CHECK (status IN ('pending', 'running', 'done', 'diverged', 'failed')),
    diverged_at INTEGER,                    -- the first step (from 1) whose loss was not finite
    best_step   INTEGER,                    -- early stopping: whose weights are the final ones
    message     TEXT,                       -- why it failed, or ended before its last step
    start_hash  TEXT,                       -- weights and buffers before the first step
    order_hash  TEXT,                       -- batches handed out until steps_done
    UNIQUE (trial_id, stage, rung, seed)
);

CREATE TABLE evaluations (
    run_id TEXT NOT NULL REFERENCES runs,
    step   INTEGER NOT NULL,                -- after so many steps
    split  TEXT NOT NULL CHECK (split IN ('train', 'val', 'test')),
    metric TEXT NOT NULL,
    value  REAL,                            -- NULL is not-a-number
    PRIMARY KEY (run_id, step, split, metric)
) WITHOUT ROWID;

CREATE TABLE curves (
    run_id     TEXT NOT NULL REFERENCES runs,
    name       TEXT NOT NULL,               -- train_loss, lr
    first_step INTEGER NOT NULL,            -- the step (from 1) of the first value
    count      INTEGER NOT NULL,
    data       BLOB NOT NULL,               -- little-endian float32, zlib
    PRIMARY KEY (run_id, name, first_step)
);

CREATE TABLE checkpoints (
    path   TEXT PRIMARY KEY,                -- inside the race's folder
    kind   TEXT NOT NULL CHECK (kind IN ('start', 'resume', 'final')),
    run_id TEXT REFERENCES runs,            -- NULL for the start weights of a seed
    seed   INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    sha256 TEXT                             -- of the tensors of start and final weights
);

CREATE TABLE clock (
    run_id  TEXT NOT NULL REFERENCES runs,
    step    INTEGER NOT NULL,
    seconds REAL NOT NULL,                  -- spent in training steps so far, evaluation left out
    PRIMARY KEY (run_id, step)
) WITHOUT ROWID;

CREATE TABLE timings (
    arm_id   INTEGER NOT NULL REFERENCES arms,
    quantity TEXT NOT NULL,
    value    REAL NOT NULL,
    low      REAL,                          -- quartiles, where it is a median
    high     REAL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (arm_id, quantity)
);

CREATE TABLE events (
    event_id INTEGER PRIMARY KEY,
    at       TEXT NOT NULL,                 -- UTC, ISO 8601
    kind     TEXT NOT NULL,
    run_id   TEXT REFERENCES runs,
    text     TEXT NOT NULL
);

CREATE TABLE verdicts (
    verdict_id INTEGER PRIMARY KEY,
    body       TEXT NOT NULL                -- JSON
);
