CREATE TABLE users (
    id            TEXT   NOT NULL PRIMARY KEY,
    name          TEXT   NOT NULL UNIQUE,
    password_hash TEXT,
    create_time   BIGINT NOT NULL
);

-- Secrets are kept as hashes only.
CREATE TABLE sessions (
    id          TEXT   NOT NULL PRIMARY KEY,
    hash        TEXT   NOT NULL UNIQUE,
    user_id     TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    create_time BIGINT NOT NULL,
    expire_time BIGINT NOT NULL
);
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_expire ON sessions (expire_time);

-- A token taken back stays as a row: the feed asks whose it was.
CREATE TABLE tokens (
    id             TEXT   NOT NULL PRIMARY KEY,
    user_id        TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name           TEXT   NOT NULL,
    hash           TEXT   NOT NULL UNIQUE,
    create_time    BIGINT NOT NULL,
    last_used_time BIGINT,
    delete_time    BIGINT
);
CREATE UNIQUE INDEX tokens_living_name ON tokens (user_id, name) WHERE delete_time IS NULL;

CREATE TABLE login_links (
    hash        TEXT   NOT NULL PRIMARY KEY,
    user_id     TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    expire_time BIGINT NOT NULL
);
