-- Who has proved a password too often in vain. A bucket is the keyed digest of an account, an address, or both; what was
-- typed as an address may be a password, so nothing of it is kept. full_ms is the unix millisecond at which nothing of
-- its failures is left to count. Written on failures only.
CREATE TABLE login_failures (
    bucket  BINARY(32) NOT NULL,
    full_ms BIGINT UNSIGNED NOT NULL,
    PRIMARY KEY (bucket),
    KEY ix_login_failures_full (full_ms)
) ENGINE = InnoDB;

-- Where a login came from, as the same kind of digest: an address at which the account's password was known once.
ALTER TABLE refresh_families
    ADD COLUMN client BINARY(32) NULL AFTER user_id,
    ADD KEY ix_refresh_families_user (user_id, client);
