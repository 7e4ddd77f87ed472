-- Who signs in by an OpenID Connect provider. A subject never becomes another user by itself: when its user is removed
-- the row stays, and nobody is let in by it.
CREATE TABLE identities (
    issuer      TEXT   NOT NULL,
    subject     TEXT   NOT NULL,
    user_id     TEXT   UNIQUE REFERENCES users (id) ON DELETE SET NULL,
    create_time BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);

-- Whether the provider's groups gave a role: those are given and taken away at each sign-in.
ALTER TABLE user_grants ADD COLUMN by_provider BIGINT NOT NULL DEFAULT 0;
