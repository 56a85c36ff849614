-- Of a deleted account its id stays, so that coupons that were issued to it remain accountable and no other account ever
-- has it; what says whose it was goes.
ALTER TABLE users
    MODIFY email VARCHAR(254) CHARACTER SET ascii COLLATE ascii_bin NULL,
    MODIFY password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN deleted_at DATETIME(3) NULL;
