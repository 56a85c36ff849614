//! The change of a coupon. Invariants: two changes at once both take effect, one after the other; a version is never
//! given twice, also if the database went back behind the ledger.

use sqlx::{Connection as _, MySqlPool};

use crate::coupon::count::LedgerCoupon;
use crate::coupon::request::Change;
use crate::coupon::{Coupon, CouponId, next_version};
use crate::error::ApiError;
use crate::store;

/// A coupon after a change was asked for.
#[derive(Debug)]
pub struct Changed {
    pub coupon: Coupon,
    /// Whether there is a new version; a change that says what is in force already makes none.
    pub new_version: bool,
}

/// Changes a coupon in one transaction. `word` is what the ledger said before it began: the row's lock is never held
/// across a call to another service.
pub async fn change(
    pool: &MySqlPool,
    coupon_id: CouponId,
    change: &Change,
    word: Option<LedgerCoupon>,
    now: u64,
) -> Result<Changed, ApiError> {
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    let Some(mut coupon) = store::find_for_update(&mut *transaction, coupon_id).await? else {
        return Err(ApiError::NotFound);
    };
    let stored = coupon.definition;
    if let Some(word) = word {
        if word.retired {
            return Err(ApiError::Retired);
        }
        // The database went back (a restore, a failover to a lagging replica): what is in force is the ledger's.
        if word.version > stored.version {
            coupon.definition = word.definition();
        }
        if coupon.issued.offset <= Some(word.offset) && coupon.issued != word.issued() {
            coupon.issued = word.issued();
            store::overrule(&mut *transaction, coupon_id, coupon.issued).await?;
        }
    }
    let after = change.apply(&coupon.definition).map_err(|violation| ApiError::Invalid(vec![violation]))?;
    if after != coupon.definition {
        coupon.definition = after;
        coupon.definition.version = next_version(after.version, word.map(|word| word.version), now);
    }
    let new_version = coupon.definition != stored;
    if new_version && !store::redefine(&mut *transaction, &coupon.definition, now).await? {
        // Can't be while the row is locked; rolled back rather than announced.
        return Err(ApiError::Overtaken);
    }
    transaction.commit().await?;
    Ok(Changed { coupon, new_version })
}
