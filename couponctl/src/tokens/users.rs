//! Whom tokens are for: new ids of the services' own scheme, or the accounts in MySQL.

use anyhow::{Context, Result, bail};
use rand::Rng;
use rand::seq::SliceRandom;

use crate::servers::Mysql;
use crate::{clock, ids};

/// Unique ids as the services would have made them at any moment until now.
///
/// They are spread over the whole past on purpose: no id that is made from now on can meet one, and with a
/// million accounts the chance that any of a million meets an existing one is below one in a hundred.
pub(crate) fn new(count: u64) -> Vec<u64> {
    let now = clock::now_ms().saturating_sub(ids::EPOCH_MS);
    let end = (now << ids::RANDOM_BITS).clamp(1, ids::LIMIT);
    let mut random = rand::rng();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut users = Vec::with_capacity(count);
    while users.len() < count {
        users.extend((users.len()..count).map(|_| random.random_range(1..end)));
        users.sort_unstable();
        users.dedup();
    }
    // Customers do not come in the order in which they signed up.
    users.shuffle(&mut random);
    users
}

/// Accounts in MySQL, oldest first.
pub(crate) fn existing(mysql: &Mysql, database: &str, count: Option<u64>) -> Result<Vec<u64>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = mysql.connect(database).await?;
        let limit = i64::try_from(count.unwrap_or(u64::MAX)).unwrap_or(i64::MAX);
        let rows: Vec<i64> =
            // Of a deleted account only the id is there.
            sqlx::query_scalar("SELECT CAST(user_id AS SIGNED) FROM users WHERE email IS NOT NULL ORDER BY user_id LIMIT ?")
                .bind(limit)
                .fetch_all(&mut connection)
                .await
                .context("cannot read the users from MySQL")?;
        let users: Vec<u64> = rows.into_iter().filter_map(|id| u64::try_from(id).ok()).collect();
        match count {
            Some(count) if (users.len() as u64) < count => {
                bail!("there are {} accounts, not {count}; leave --count out for all of them", users.len())
            }
            _ if users.is_empty() => bail!("there is no account yet; --new makes tokens for new ids"),
            _ => Ok(users),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn new_ids_are_unique_and_of_the_past() {
        let users = new(50_000);
        let unique: HashSet<u64> = users.iter().copied().collect();
        assert_eq!(unique.len(), 50_000);
        let now = clock::now_ms() - ids::EPOCH_MS;
        assert!(users.iter().all(|&id| id > 0 && id >> ids::RANDOM_BITS <= now && id < ids::LIMIT));
    }
}
