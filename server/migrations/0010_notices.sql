-- The secret is what posts are signed with, so it is kept as it is; the one before signs as well until its end.
CREATE TABLE notice_channels (
    id             TEXT   NOT NULL PRIMARY KEY,
    name           TEXT   NOT NULL UNIQUE,
    kind           TEXT   NOT NULL CHECK (kind IN ('WEBHOOK', 'MAIL')),
    url            TEXT,
    recipients     TEXT   NOT NULL,
    events         TEXT   NOT NULL,
    enabled        BIGINT NOT NULL,
    secret         TEXT,
    old_secret     TEXT,
    old_secret_end BIGINT,
    last_time      BIGINT,
    last_outcome   TEXT CHECK (last_outcome IN ('DELIVERED', 'FAILED')),
    last_error     TEXT,
    create_time    BIGINT NOT NULL,
    CHECK ((kind = 'WEBHOOK') = (url IS NOT NULL) AND (kind = 'WEBHOOK') = (secret IS NOT NULL)),
    CHECK ((old_secret IS NULL) = (old_secret_end IS NULL)),
    CHECK ((last_time IS NULL) = (last_outcome IS NULL))
);

-- A notice is written in the transaction that it tells of. Of each job a channel hears once of each event.
CREATE TABLE notices (
    id          TEXT   NOT NULL PRIMARY KEY,
    channel     TEXT   NOT NULL REFERENCES notice_channels (id) ON DELETE CASCADE,
    event       TEXT   NOT NULL,
    job         TEXT,
    message     TEXT   NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('WAITING', 'DELIVERED', 'GIVEN_UP')),
    attempts    BIGINT NOT NULL DEFAULT 0,
    create_time BIGINT NOT NULL,
    next_time   BIGINT,
    end_time    BIGINT,
    error       TEXT,
    UNIQUE (channel, job, event),
    CHECK ((state = 'WAITING') = (next_time IS NOT NULL) AND (state = 'WAITING') = (end_time IS NULL))
);
CREATE INDEX notices_waiting ON notices (channel, next_time) WHERE state = 'WAITING';
CREATE INDEX notices_ended ON notices (end_time);
CREATE INDEX notices_of_channel ON notices (channel, create_time);
