use http_body_util::{BodyExt as _, Empty, Full};
use tokio::sync::OwnedSemaphorePermit;

use super::*;

const HEADER: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(75);
/// More than the clock is coarse.
const MOMENT: Duration = Duration::from_millis(10);

fn limits() -> Limits {
    Limits { header: HEADER, idle: IDLE, permits: Arc::new(Semaphore::new(8)), most: 8 }
}

/// A request without a body, its answer, and all of it written.
fn serve(exchange: &Arc<Exchange>) {
    drop(exchange.begin(Empty::<Bytes>::new()));
    exchange.flushed();
}

/// Polls as a connection's task would after the connection.
fn look(idle: &mut Idle<'_>) -> Poll<Verdict> {
    idle.poll(&mut Context::from_waker(std::task::Waker::noop()), true)
}

/// The next verdict, and after how many seconds.
async fn next(idle: &mut Idle<'_>, rests: bool) -> (Verdict, u64) {
    let begun = Instant::now();
    let verdict = tokio::time::timeout(10 * IDLE, std::future::poll_fn(|cx| idle.poll(cx, rests)));
    (verdict.await.unwrap(), (begun.elapsed() + MOMENT).as_secs())
}

#[tokio::test(start_paused = true)]
async fn the_first_head_has_the_header_timeout_however_it_drips() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    for _ in 0..4 {
        assert!(look(&mut idle).is_pending());
        tokio::time::sleep(Duration::from_secs(1)).await;
        exchange.read();
    }
    assert_eq!(next(&mut idle, false).await, (Verdict::Over, 1));
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_a_connection_may_be_quiet_for_long_and_a_head_not() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    serve(&exchange);
    assert!(look(&mut idle).is_pending());
    tokio::time::sleep(IDLE - Duration::from_secs(3)).await;
    assert!(look(&mut idle).is_pending());
    // The next head begins, and has all of its time.
    exchange.read();
    assert!(look(&mut idle).is_pending());
    tokio::time::sleep(HEADER - MOMENT).await;
    assert!(look(&mut idle).is_pending());
    serve(&exchange);
    // Counted from the last answer, though that was there before anybody looked.
    assert_eq!(next(&mut idle, true).await, (Verdict::Over, IDLE.as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_and_an_answer_that_is_not_taken_are_others_business() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    let under_way = exchange.begin(Empty::<Bytes>::new());
    exchange.read();
    exchange.flushed();
    tokio::time::sleep(10 * IDLE).await;
    assert!(look(&mut idle).is_pending());
    drop(under_way);
    tokio::time::sleep(10 * IDLE).await;
    assert!(look(&mut idle).is_pending());
    exchange.flushed();
    assert_eq!(next(&mut idle, true).await, (Verdict::Over, IDLE.as_secs()));
}

#[tokio::test(start_paused = true)]
async fn quiet_connections_make_room_when_there_is_none() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    serve(&exchange);
    assert!(look(&mut idle).is_pending());
    let others: Vec<OwnedSemaphorePermit> =
        (0..8).map(|_| limits.permits.clone().try_acquire_owned().unwrap()).collect();
    assert_eq!(next(&mut idle, true).await, (Verdict::Over, HEADER.as_secs()));
    drop(others);
}

#[tokio::test(start_paused = true)]
async fn who_is_quiet_comes_to_rest_unless_his_requests_body_was_not_read() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    serve(&exchange);
    assert!(look(&mut idle).is_pending());
    let (verdict, after) = next(&mut idle, false).await;
    assert!(verdict == Verdict::Rest && (REST.as_secs()..=HEADER.as_secs()).contains(&after), "{after}");
    assert_eq!(next(&mut idle, true).await, (Verdict::Over, IDLE.as_secs() - after), "and is ended as ever");

    let (asking, answering) = exchange.begin(Full::<Bytes>::from("all of it"));
    asking.collect().await.unwrap();
    drop(answering);
    exchange.flushed();
    assert_eq!(next(&mut idle, false).await.0, Verdict::Rest);

    drop(exchange.begin(Full::<Bytes>::from("nobody reads this")));
    exchange.flushed();
    assert_eq!(next(&mut idle, false).await, (Verdict::Over, IDLE.as_secs()));
}
