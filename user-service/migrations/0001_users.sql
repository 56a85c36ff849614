-- Accounts. The id is made by the service (never AUTO_INCREMENT: ids must not repeat after a restore).
-- E-mail addresses are stored normalised and are ASCII, so a binary collation is exact and compact.
CREATE TABLE users (
    user_id       BIGINT UNSIGNED NOT NULL,
    email         VARCHAR(254) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    created_at    DATETIME(3) NOT NULL,
    PRIMARY KEY (user_id),
    UNIQUE KEY uk_users_email (email)
) ENGINE = InnoDB;

-- Roles that were granted beyond USER, which every account has.
CREATE TABLE user_roles (
    user_id    BIGINT UNSIGNED NOT NULL,
    role       VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    granted_at DATETIME(3) NOT NULL,
    PRIMARY KEY (user_id, role),
    CONSTRAINT fk_user_roles_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
) ENGINE = InnoDB;

-- One family per login: every refresh token that descends from that login belongs to it.
CREATE TABLE refresh_families (
    sid        BINARY(16) NOT NULL,
    user_id    BIGINT UNSIGNED NOT NULL,
    created_at DATETIME(3) NOT NULL,
    expires_at DATETIME(3) NOT NULL,
    revoked_at DATETIME(3) NULL,
    PRIMARY KEY (sid),
    KEY ix_refresh_families_expires (expires_at),
    CONSTRAINT fk_refresh_families_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
) ENGINE = InnoDB;

-- Only digests of tokens are kept. Used ones stay until they expire: presenting one again betrays a theft.
CREATE TABLE refresh_tokens (
    token_hash BINARY(32) NOT NULL,
    sid        BINARY(16) NOT NULL,
    issued_at  DATETIME(3) NOT NULL,
    expires_at DATETIME(3) NOT NULL,
    used_at    DATETIME(3) NULL,
    PRIMARY KEY (token_hash),
    KEY ix_refresh_tokens_expires (expires_at),
    CONSTRAINT fk_refresh_tokens_family FOREIGN KEY (sid) REFERENCES refresh_families (sid) ON DELETE CASCADE
) ENGINE = InnoDB;
