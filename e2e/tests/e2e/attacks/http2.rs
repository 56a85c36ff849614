//! HTTP/2 as a weapon: what costs the client one frame and the server much more.

use e2e::client::Client;
use e2e::counters::requests;
use e2e::raw::{Raw, http2};
use e2e::stack::{Stack, alone, shared};
use e2e::users;

/// Whether the gateway still answers others.
async fn others_are_answered(stack: &Stack) {
    let client = Client::gateway(stack);
    let user = users::customer(&client).await;
    client.get("/users/me", Some(&user.access)).await.expect(200);
}

/// CVE-2023-44487: requests that are taken back as soon as they are sent.
#[tokio::test]
async fn rapid_reset_ends_the_connection_and_hardly_reaches_a_service() {
    const STREAMS: u32 = 20_000;
    let _stack = alone().await;
    let stack = Stack::load();
    let before = requests(&stack, "user-service", "POST").await;
    let mut flood = http2::preface();
    for number in 0..STREAMS {
        let stream = 2 * number + 1;
        let block = http2::request("POST", "/users/login", &[("content-type", "application/json")]);
        flood.extend(http2::frame(http2::HEADERS, http2::END_STREAM | http2::END_HEADERS, stream, &block));
        flood.extend(http2::frame(http2::RST_STREAM, 0, stream, &http2::CANCEL));
    }
    let mut raw = Raw::connect(&stack.gateway).await;
    let heard = raw.bytes_until_closed(&flood).await;
    let begun = http2::frames(&heard).iter().filter(|frame| frame.kind == http2::HEADERS).count();
    let seen = requests(&stack, "user-service", "POST").await - before;
    assert!(seen < u64::from(STREAMS) / 20, "the service saw {seen} of {STREAMS}, {begun} were answered");
    others_are_answered(&stack).await;
}

/// CVE-2024-27316: headers that go on and on, in frames of their own.
#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let _stack = shared().await;
    let stack = Stack::load();
    for content in [http2::block(&[("x", &"y".repeat(1_000))]), Vec::new()] {
        let mut flood = http2::preface();
        let block = http2::request("GET", "/coupons", &[]);
        flood.extend(http2::frame(http2::HEADERS, http2::END_STREAM, 1, &block));
        for _ in 0..50_000 {
            flood.extend(http2::frame(http2::CONTINUATION, 0, 1, &content));
        }
        Raw::connect(&stack.gateway).await.bytes_until_closed(&flood).await;
    }
    others_are_answered(&stack).await;
}

#[tokio::test]
async fn a_hundred_thousand_headers_are_refused_in_both_versions() {
    const HEADERS: usize = 100_000;
    let _stack = shared().await;
    let stack = Stack::load();
    for value in ["", "y"] {
        let lines: String = (0..HEADERS).map(|number| format!("x-{number}: {value}\r\n")).collect();
        let request = format!("GET /coupons HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
        assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.status == 431), "{answers:?}");
    }
    // Few bytes, but more than a hundred of them.
    let request = format!("GET /coupons HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    let answers = Raw::connect(&stack.gateway).await.until_closed(request.as_bytes()).await;
    assert!(answers.len() <= 1 && answers.iter().all(|answer| answer.status == 431), "{answers:?}");

    // A name that the first header left in the table costs one byte each (RFC 7541): a bomb of 100,000 in 100 KB.
    for indexed in [false, true] {
        let mut block = http2::request("GET", "/coupons", &[]);
        if indexed {
            block.extend([0x40, 1, b'x', 1, b'y']);
            block.extend(std::iter::repeat_n(0x80 | 62, HEADERS));
        } else {
            block.extend((0..HEADERS).flat_map(|number| http2::block(&[(&format!("x-{number}"), "y")])));
        }
        let pieces: Vec<_> = block.chunks(16_000).collect();
        let mut message = http2::preface();
        for (at, piece) in pieces.iter().enumerate() {
            let (kind, begin) =
                if at == 0 { (http2::HEADERS, http2::END_STREAM) } else { (http2::CONTINUATION, 0) };
            let end = if at + 1 == pieces.len() { http2::END_HEADERS } else { 0 };
            message.extend(http2::frame(kind, begin | end, 1, piece));
        }
        let mut raw = Raw::connect(&stack.gateway).await;
        raw.send(&message).await;
        raw.stream_ends(1).await;
        assert!(!raw.data(1).contains("items"), "the list of coupons was given");
    }
    others_are_answered(&stack).await;
}

/// Frames that ask for nothing but an answer, of a client that reads none.
#[tokio::test]
async fn pings_and_settings_without_an_end_hold_nobody_up() {
    let _stack = shared().await;
    let stack = Stack::load();
    for frame in [http2::frame(http2::PING, 0, 0, &[0; 8]), http2::frame(http2::SETTINGS, 0, 0, &[])] {
        let flood = [http2::preface(), frame.repeat(200_000)].concat();
        let mut raw = Raw::connect(&stack.gateway).await;
        // It takes them until the answers fill the way back, and no further.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(3), raw.send(&flood)).await;
        others_are_answered(&stack).await;
    }
}
