use tokio::sync::Semaphore;

use super::*;

const HEADER: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(75);

#[tokio::test(start_paused = true)]
async fn the_first_request_is_waited_for_and_the_next_one_and_none_for_ever() {
    let limits = Limits { header: HEADER, idle: IDLE, permits: Arc::new(Semaphore::new(8)), most: 8 };
    let seconds = async |requests: &AtomicUsize| {
        let begun = Instant::now();
        let used = until_idle(requests, &limits, begun).await;
        (used, begun.elapsed().as_secs())
    };
    let requests = AtomicUsize::new(0);
    assert_eq!(seconds(&requests).await, (false, HEADER.as_secs()));
    requests.store(1, Relaxed);
    assert_eq!(seconds(&requests).await, (true, (HEADER + IDLE).as_secs()));
    let busy = async {
        loop {
            requests.fetch_add(1, Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (used, lived) = tokio::select! {
        ended = seconds(&requests) => ended,
        () = busy => unreachable!(),
    };
    assert!(used && (3_600..3_600 + IDLE.as_secs() + 1).contains(&lived), "{lived}");
}
