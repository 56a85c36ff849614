//! Far more users than stock, each asking twice in parallel, on two instances.

use std::sync::Arc;
use std::time::Duration;

use e2e::client::Client;
use e2e::coupons::{self, OPEN};
use e2e::load::{self, Outcome, Plan};
use e2e::stack::{Stack, alone};
use e2e::tokens::{Minter, user_ids};
use e2e::{audit, faults, users};

const STOCK: usize = 1_000;
const USERS: usize = 15_000;
/// Users at a time, each with two connections.
const WORKERS: usize = 1_000;
/// Of the write-back, as it is shipped.
const INTERVAL: Duration = Duration::from_secs(1);
const SHIPPED: &str = include_str!("../../../config-repo/coupon-service.yml");
/// For the count's way to Redis (0.2 s), and for a debug build in the middle of the race.
const MARGIN: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_goes_to_as_many_users_once_each() {
    let _stack = alone().await;
    let stack = faults::wait_until_whole(&Stack::load()).await;
    assert!(stack.instances("issue-service").len() >= 2, "this needs two instances of the issue service");
    let client = Client::gateway(&stack);
    let admin = users::admin(&stack, &client).await;
    let coupon = coupons::create(&client, &admin, STOCK as u64, OPEN).await;
    let plan = Plan { users: user_ids(USERS), parallel: 2, workers: WORKERS };
    let load = load::start(&client, &Minter::of(&stack), coupon, &plan).await;
    let live = Arc::clone(&load.live);
    let shown = async {
        audit::wait_for_issued(&client, coupon, STOCK as u64, Duration::from_secs(60)).await;
        live.elapsed()
    };
    let (record, shown) = tokio::join!(load.finish(), shown);
    let sold_out = record.last_win();
    println!("{}; the last won at {sold_out:?}, {STOCK} shown at {shown:?}", record.summary());
    assert!(shown < sold_out + INTERVAL + MARGIN, "shown {:?} later", shown.saturating_sub(sold_out));
    assert!(SHIPPED.contains("\n  interval: 1s "), "{INTERVAL:?} is not the interval of write-back any more");

    assert_eq!(
        record.count(|o| matches!(o, Outcome::Wrong(..) | Outcome::Broken(_))),
        0,
        "{:?}",
        record.sample()
    );
    assert_eq!(record.winners().len(), STOCK, "{}", record.summary());
    let rows = audit::check(&audit::mysql(&stack).await, coupon, STOCK, &record).await;
    let members = audit::redis_users(&stack, coupon).await;
    assert_eq!(members, rows.keys().copied().collect(), "Redis and MySQL differ");

    let shown = client.get(&format!("/coupons/{coupon}"), None).await.expect(200);
    assert_eq!(shown["remainingQuantity"], 0, "{shown}");
    assert_eq!(shown["state"], "SOLD_OUT", "{shown}");
}
