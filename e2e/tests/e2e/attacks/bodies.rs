//! Bodies as a weapon: compressed, endless, nested.

use e2e::client::Client;
use e2e::raw::Raw;
use e2e::stack::{Stack, shared};
use reqwest::Method;

const PATH: &str = "/users/sign-up";
/// 16 KiB of zeros as one gzip member; members may follow each other (RFC 1952, 2.2).
const ZEROS: &str =
    "1f8b0800000000000203edc13101000000c2a0f54f6d0c1fa000000000000000000000000000000080b70186d254ab00400000";

#[tokio::test]
async fn a_decompression_bomb_is_never_unpacked() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    let member = hex::decode(ZEROS).unwrap_or_default();
    // 3 MiB in 13 KiB, for whoever would unpack it.
    let bomb = member.repeat(254);
    for coding in ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip, gzip", "identity"] {
        let request = client.request(Method::POST, PATH).header("content-type", "application/json");
        let answer = client.send(request.header("content-encoding", coding).body(bomb.clone())).await;
        answer.problem(400, "MALFORMED_JSON");
    }
    // Announced as a coding of the transfer.
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{:x}\r\n",
        bomb.len()
    );
    let mut raw = Raw::connect(&Stack::load().gateway).await;
    raw.send(&[head.as_bytes(), &bomb, b"\r\n0\r\n\r\n"].concat()).await;
    assert_eq!(raw.answer().await.map(|answer| answer.status), Some(400));
}

#[tokio::test]
async fn a_body_without_an_end_is_cut() {
    let _stack = shared().await;
    let stack = Stack::load();
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    // Announced: refused by that word.
    for length in ["1073741824", "9223372036854775807", "18446744073709551614"] {
        let mut raw = Raw::connect(&stack.gateway).await;
        raw.send(format!("{head}Content-Length: {length}\r\n\r\n{{").as_bytes()).await;
        // While nothing more comes it may wait for the rest; with more it ends.
        let endless = vec![b' '; 1 << 20];
        let mut taken = 0;
        while raw.send(&endless).await {
            taken += endless.len();
            assert!(taken < 64 << 20, "{length}: {taken} bytes were taken");
        }
    }
    // Not announced: counted.
    let mut raw = Raw::connect(&stack.gateway).await;
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await;
    let chunk = [format!("{:x}\r\n", 1 << 20).into_bytes(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let mut taken = 0;
    while raw.send(&chunk).await {
        taken += chunk.len();
        assert!(taken < 64 << 20, "{taken} bytes were taken");
    }
    // The same in extensions of chunks, which no limit of a body counts.
    let mut raw = Raw::connect(&stack.gateway).await;
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).await;
    let extended = format!("1;{}\r\n \r\n", "x".repeat(1024)).repeat(1024);
    let mut taken = 0;
    while raw.send(extended.as_bytes()).await {
        taken += extended.len();
        assert!(taken < 64 << 20, "{taken} bytes of extensions were taken");
    }
}

#[tokio::test]
async fn json_that_is_nested_without_an_end_is_refused() {
    let _stack = shared().await;
    let client = Client::gateway(&Stack::load());
    for (open, times) in [("[", 16_000), ("{\"a\":", 3_000), ("[{\"a\":", 2_500)] {
        let answer = client.post_text(PATH, None, "application/json", open.repeat(times)).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
        let inner = format!("{{\"email\":{}", open.repeat(times.min(2_000)));
        let answer = client.post_text(PATH, None, "application/json", inner).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
}
