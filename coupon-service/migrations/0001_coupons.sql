-- Coupon definitions, and the issued counts that are written back from the ledger.
-- The id is made by the service (never AUTO_INCREMENT: ids must not repeat after a restore). All times are UTC.
CREATE TABLE coupons (
    coupon_id       BIGINT NOT NULL,
    -- Raised by each change of the definition, never by a count.
    version         BIGINT NOT NULL,
    event_id        BIGINT NULL,
    name            VARCHAR(200) CHARACTER SET utf8mb4 NOT NULL,
    quantity        INT UNSIGNED NOT NULL,
    starts_at       DATETIME(3) NOT NULL,
    ends_at         DATETIME(3) NOT NULL,
    closed          BOOLEAN NOT NULL DEFAULT FALSE,
    -- Count of the ledger, and the place in the coupon's partition that it was true at.
    issued_quantity INT UNSIGNED NOT NULL DEFAULT 0,
    issued_offset   BIGINT NULL,
    -- The ledger gave its last word: the coupon has ended or is closed, so the count can't change any more.
    settled         BOOLEAN NOT NULL DEFAULT FALSE,
    created_at      DATETIME(3) NOT NULL,
    updated_at      DATETIME(3) NOT NULL,
    PRIMARY KEY (coupon_id),
    -- "What changed since": the issue service asks each second.
    KEY ix_coupons_version (version),
    -- "What may still change": the write-back asks each second.
    KEY ix_coupons_settled (settled, starts_at),
    -- "What has not ended": a starting issue service asks.
    KEY ix_coupons_ends (ends_at)
) ENGINE = InnoDB;
