use tokio::sync::OwnedSemaphorePermit;

use super::*;

const HEADER: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(75);
/// Not enough for the clock to reach a limit by itself.
const MOMENT: Duration = Duration::from_millis(10);

fn limits() -> Limits {
    Limits { header: HEADER, idle: IDLE, permits: Arc::new(Semaphore::new(8)), most: 8 }
}

/// Polls as a connection's task would after the connection, and tells whether it has waited for too long.
fn is_over(idle: &mut Idle<'_>) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    Pin::new(idle).poll(&mut cx).is_ready()
}

/// Seconds until the connection has waited for too long.
async fn left(idle: &mut Idle<'_>) -> f64 {
    let begun = Instant::now();
    tokio::time::timeout(10 * IDLE, &mut *idle).await.unwrap();
    begun.elapsed().as_secs_f64().round()
}

#[tokio::test(start_paused = true)]
async fn the_first_head_has_the_header_timeout_however_it_drips() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    for _ in 0..4 {
        assert!(!is_over(&mut idle));
        tokio::time::sleep(Duration::from_secs(1)).await;
        exchange.read();
    }
    assert_eq!(left(&mut idle).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn after_an_answer_a_connection_may_be_quiet_for_long_and_a_head_not() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    exchange.request();
    drop(Answering(exchange.clone()));
    assert!(!is_over(&mut idle));
    tokio::time::sleep(IDLE - Duration::from_secs(3)).await;
    assert!(!is_over(&mut idle));
    // The next head begins, and has all of its time.
    exchange.read();
    assert!(!is_over(&mut idle));
    tokio::time::sleep(HEADER - MOMENT).await;
    assert!(!is_over(&mut idle));
    exchange.request();
    drop(Answering(exchange.clone()));
    assert_eq!(
        left(&mut idle).await,
        IDLE.as_secs_f64(),
        "counted from the last answer, though it came at once"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_under_way_and_an_answer_that_is_not_taken_are_others_business() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    exchange.request();
    let answering = Answering(exchange.clone());
    exchange.read();
    tokio::time::sleep(10 * IDLE).await;
    assert!(!is_over(&mut idle));
    exchange.blocked(true);
    drop(answering);
    assert!(!is_over(&mut idle));
    tokio::time::sleep(10 * IDLE).await;
    assert!(!is_over(&mut idle));
    exchange.blocked(false);
    assert_eq!(left(&mut idle).await, IDLE.as_secs_f64());
}

#[tokio::test(start_paused = true)]
async fn quiet_connections_make_room_when_there_is_none() {
    let (exchange, limits) = (Arc::new(Exchange::default()), limits());
    let mut idle = Idle::new(exchange.clone(), &limits, Instant::now());
    exchange.request();
    drop(Answering(exchange.clone()));
    assert!(!is_over(&mut idle));
    let others: Vec<OwnedSemaphorePermit> =
        (0..8).map(|_| limits.permits.clone().try_acquire_owned().unwrap()).collect();
    assert_eq!(left(&mut idle).await, HEADER.as_secs_f64());
    drop(others);
}

#[tokio::test(start_paused = true)]
async fn http2_waits_for_the_first_request_for_the_next_one_and_not_for_ever() {
    let limits = limits();
    let seconds = async |exchange: Arc<Exchange>| {
        let begun = Instant::now();
        let used = http2(&exchange, &limits, begun).await;
        (used, begun.elapsed().as_secs())
    };
    assert_eq!(seconds(Arc::default()).await, (false, HEADER.as_secs()));
    let exchange = Arc::new(Exchange::default());
    exchange.request();
    assert_eq!(seconds(exchange.clone()).await, (true, (HEADER + IDLE).as_secs()));
    let busy = async {
        loop {
            exchange.request();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (used, lived) = tokio::select! {
        ended = seconds(exchange.clone()) => ended,
        () = busy => unreachable!(),
    };
    assert!(used && (3_600..3_600 + IDLE.as_secs() + 1).contains(&lived), "{lived}");
}
