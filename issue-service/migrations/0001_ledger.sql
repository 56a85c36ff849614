-- The index of the ledger: what the log decided, written by the consumers and by nobody else.
-- Times are milliseconds since 1970 in UTC, exactly as the log holds them.

CREATE TABLE ledger_meta (
    id         TINYINT UNSIGNED NOT NULL PRIMARY KEY COMMENT 'always 1',
    partitions INT UNSIGNED     NOT NULL COMMENT 'of the topic; part of the data, never changed',
    topic_id   VARCHAR(64)      CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'given by Kafka when the topic was made'
) ENGINE = InnoDB;

CREATE TABLE ledger_watermarks (
    log_partition    INT UNSIGNED    NOT NULL PRIMARY KEY,
    `next`           BIGINT UNSIGNED NOT NULL COMMENT 'the first offset that is not in these tables',
    digest           BINARY(32)      NOT NULL COMMENT 'of everything below next',
    last_record_hash BINARY(32)      NOT NULL COMMENT 'of the record at next - 1'
) ENGINE = InnoDB;

CREATE TABLE ledger_digests (
    log_partition INT UNSIGNED    NOT NULL,
    `next`        BIGINT UNSIGNED NOT NULL COMMENT 'a multiple of 4096',
    digest        BINARY(32)      NOT NULL COMMENT 'of everything below next',
    PRIMARY KEY (log_partition, `next`)
) ENGINE = InnoDB;

CREATE TABLE issue_coupons (
    coupon_id     BIGINT UNSIGNED NOT NULL PRIMARY KEY,
    log_partition INT UNSIGNED    NOT NULL,
    version       BIGINT UNSIGNED NOT NULL,
    stock         INT UNSIGNED    NOT NULL COMMENT 'in force',
    starts_at     BIGINT UNSIGNED NOT NULL,
    ends_at       BIGINT UNSIGNED NOT NULL,
    closed        BOOLEAN         NOT NULL,
    retire_offset BIGINT UNSIGNED NULL,
    `count`       INT UNSIGNED    NOT NULL COMMENT 'rows of coupon_issues',
    KEY by_partition (log_partition)
) ENGINE = InnoDB;

CREATE TABLE coupon_issues (
    coupon_id  BIGINT UNSIGNED NOT NULL,
    user_id    BIGINT UNSIGNED NOT NULL,
    place      INT UNSIGNED    NOT NULL COMMENT 'counting from 1',
    log_offset BIGINT UNSIGNED NOT NULL,
    issued_at  BIGINT UNSIGNED NOT NULL COMMENT 'append time of the claim',
    PRIMARY KEY (coupon_id, user_id),
    KEY my_coupons (user_id, issued_at)
) ENGINE = InnoDB;
