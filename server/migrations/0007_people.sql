-- Roles that come with Offshoot have their privileges in the program: what is added to it is theirs at once.
CREATE TABLE roles (
    id          TEXT   NOT NULL PRIMARY KEY,
    name        TEXT   NOT NULL UNIQUE,
    description TEXT   NOT NULL,
    privileges  TEXT   NOT NULL,
    create_time BIGINT NOT NULL
);
INSERT INTO roles (id, name, description, privileges, create_time) VALUES
    ('00000000-0000-0000-0000-000000000001', 'viewer', 'Sees everything but users and the audit', '[]', 0),
    ('00000000-0000-0000-0000-000000000002', 'operator', 'Works with machines', '[]', 0),
    ('00000000-0000-0000-0000-000000000003', 'admin', 'May do everything', '[]', 0);

-- A role on a machine stays when the machine goes: its jobs are still to be seen by whoever worked with it.
CREATE TABLE user_grants (
    id          TEXT   NOT NULL PRIMARY KEY,
    user_id     TEXT   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role_id     TEXT   NOT NULL REFERENCES roles (id),
    vm          TEXT,
    create_time BIGINT NOT NULL
);
CREATE UNIQUE INDEX user_grants_once ON user_grants (user_id, role_id, COALESCE(vm, ''));

-- Until now everybody might do everything.
INSERT INTO user_grants (id, user_id, role_id, vm, create_time)
    SELECT lower(substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-' || substr(h, 13, 4) || '-' || substr(h, 17, 4) || '-'
            || substr(h, 21)), id, '00000000-0000-0000-0000-000000000003', NULL, create_time
        FROM (SELECT hex(randomblob(16)) AS h, id, create_time FROM users);

ALTER TABLE users ADD COLUMN disabled BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN last_sign_in_time BIGINT;
-- The secret is there while it is being set up; asked for is it once a code has proved it.
ALTER TABLE users ADD COLUMN totp_secret TEXT;
ALTER TABLE users ADD COLUMN totp_confirmed BIGINT NOT NULL DEFAULT 0;
-- The last moment whose code was used: neither it nor an earlier one is taken again.
ALTER TABLE users ADD COLUMN totp_last_step BIGINT NOT NULL DEFAULT 0;

CREATE TABLE recovery_codes (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    hash    TEXT NOT NULL,
    PRIMARY KEY (user_id, hash)
);

ALTER TABLE sessions ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE sessions ADD COLUMN user_agent TEXT NOT NULL DEFAULT '';

ALTER TABLE tokens ADD COLUMN role_id TEXT;
ALTER TABLE tokens ADD COLUMN expire_time BIGINT;

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    time       BIGINT NOT NULL,
    user_id    TEXT,
    user_name  TEXT   NOT NULL,
    address    TEXT   NOT NULL,
    method     TEXT   NOT NULL,
    route      TEXT   NOT NULL,
    path       TEXT   NOT NULL,
    status     BIGINT NOT NULL,
    result     TEXT   NOT NULL,
    detail     TEXT   NOT NULL,
    request_id TEXT   NOT NULL
);
CREATE INDEX audit_time ON audit (time);
