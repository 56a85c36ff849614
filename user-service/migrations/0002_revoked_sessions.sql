-- When the last access token of the login ends: a revocation has to be told to verifiers until then. Logins from before
-- this column have none.
ALTER TABLE refresh_families ADD COLUMN access_expires_at DATETIME(3) NULL AFTER expires_at;

-- Logins whose access tokens no longer count, for as long as one may be good. A row may be there for a token that no
-- login of ours made (the operator's tool signs some), so there is no reference to refresh_families.
CREATE TABLE revoked_sessions (
    sid        BINARY(16) NOT NULL,
    expires_at DATETIME(3) NOT NULL,
    PRIMARY KEY (sid),
    KEY ix_revoked_sessions_expires (expires_at)
) ENGINE = InnoDB;
