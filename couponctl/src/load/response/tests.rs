use super::*;

const PLAIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\ncontent-length: 5\r\n\r\nhello";
const CHUNKED: &str = "HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nX-Trailer: 1\r\n\r\n";

fn whole(text: &str) -> Response {
    parse(text.as_bytes(), false).unwrap().unwrap()
}

#[test]
fn a_body_by_length() {
    let response = whole(PLAIN);
    assert_eq!((response.status, response.reason.as_str()), (200, "OK"));
    assert_eq!(response.body, b"hello");
    assert!(response.keep_alive);
    assert_eq!(response.length, PLAIN.len());
}

#[test]
fn a_body_by_chunks() {
    let response = whole(CHUNKED);
    assert_eq!((response.status, response.body.as_slice()), (409, b"hello".as_slice()));
    assert_eq!(response.length, CHUNKED.len());
}

#[test]
fn split_anywhere_it_is_partial_and_then_the_same() {
    for text in [PLAIN, CHUNKED] {
        for at in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..at], false), Ok(None), "{at} bytes of {text:?}");
        }
        // What follows in the buffer belongs to the next response.
        let two = format!("{text}{text}");
        assert_eq!(whole(&two).length, text.len());
        assert_eq!(whole(&two[text.len()..]), whole(text));
    }
}

#[test]
fn a_body_until_the_end() {
    let text = "HTTP/1.1 200 OK\r\n\r\nhello";
    assert_eq!(parse(text.as_bytes(), false), Ok(None));
    let response = parse(text.as_bytes(), true).unwrap().unwrap();
    assert_eq!(response.body, b"hello");
    assert!(!response.keep_alive);
}

#[test]
fn interim_answers_are_passed_over() {
    let text = format!("HTTP/1.1 100 Continue\r\n\r\n{PLAIN}");
    let response = whole(&text);
    assert_eq!((response.status, response.length), (200, text.len()));
}

#[test]
fn the_connection_header_decides_on_reuse() {
    assert!(!whole("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n").keep_alive);
    assert!(!whole("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keep_alive);
    assert!(whole("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").keep_alive);
}

#[test]
fn no_content_has_no_body() {
    let text = "HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(whole(text).length, text.len());
}

#[test]
fn rubbish_is_malformed_and_nothing_grows_without_end() {
    for text in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
    ] {
        assert!(parse(text.as_bytes(), false).is_err(), "{text:?}");
    }
    assert!(parse(&vec![b'x'; MAX_HEAD], false).is_err());
}
