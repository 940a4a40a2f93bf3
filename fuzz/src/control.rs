//! The control socket: a request as the daemon reads it, and an answer as a command reads it.

use tollgate::control::protocol::{MOST_BYTES, Response, VERSION};
use tollgate::control::server;

/// Reads any bytes as a request and as an answer.
///
/// # Panics
/// If what was read is not what is written again.
pub fn run(data: &[u8]) {
    match server::parse(data) {
        Ok(request) => {
            assert_eq!(request.version, VERSION, "a request of another version was accepted");
            let line = serde_json::to_vec(&request).expect("a request that was read can be written");
            assert!(!line.contains(&b'\n'), "a request is one line");
            assert_eq!(server::parse(&line).as_ref(), Ok(&request), "a request reads as it was written");
        }
        Err(why) => {
            assert!(!why.is_empty(), "a refusal says why");
            // The answer must fit in what the other side reads.
            let answer = serde_json::to_vec(&Response::BadInput(why)).expect("a sentence can be written");
            assert!(answer.len() as u64 <= 8 * data.len() as u64 + 4096, "the answer repeats the request");
            assert!(data.len() as u64 > MOST_BYTES / 8 || (answer.len() as u64) < MOST_BYTES);
        }
    }
    if let Ok(response) = serde_json::from_slice::<Response>(data) {
        let line = serde_json::to_vec(&response).expect("an answer that was read can be written");
        let again = serde_json::from_slice::<Response>(&line).expect("an answer reads as it was written");
        assert_eq!(again, response, "an answer reads as it was written");
        if let Response::Applied(report) = response {
            assert!(report.sentence().starts_with("enforcing "));
        }
    }
}
