//! Damage to a frame that was right, or wrong in its own way.

use rand::RngExt;
use rand::rngs::StdRng;

/// Longest frame that the kernel takes for a test-run of every program.
pub const MOST_BYTES: usize = 3000;

/// Damages a frame in one way.
pub fn damage(rng: &mut StdRng, frame: &mut Vec<u8>) {
    if frame.is_empty() {
        return;
    }
    // Headers are what matters.
    let headers = frame.len().min(120);
    match rng.random_range(0..6) {
        0 => {
            for _ in 0..rng.random_range(1..5) {
                let at = rng.random_range(0..headers);
                frame[at] ^= 1 << rng.random_range(0..8);
            }
        }
        1 => frame.truncate(rng.random_range(0..=headers)),
        2 => {
            let more = rng.random_range(1..50);
            frame.resize((frame.len() + more).min(MOST_BYTES), rng.random());
        }
        3 => {
            let at = rng.random_range(0..headers);
            frame[at] = [0, 1, 0x7f, 0x80, 0xff, rng.random()][rng.random_range(0..6)];
        }
        4 => near_length(rng, frame),
        _ => {
            let from = rng.random_range(0..headers);
            let length = rng.random_range(0..=(headers - from).min(16));
            let to = rng.random_range(0..=headers - length);
            frame.copy_within(from..from + length, to);
        }
    }
}

/// Makes a length of IP or UDP a little wrong.
fn near_length(rng: &mut StdRng, frame: &mut [u8]) {
    let at = [16, 18, 20, 38, 58][rng.random_range(0..5)];
    let Some(field) = frame.get_mut(at..at + 2) else { return };
    let right = u16::from_be_bytes([field[0], field[1]]);
    let wrong = right.wrapping_add(rng.random_range(0..5)).wrapping_sub(2);
    field.copy_from_slice(&wrong.to_be_bytes());
}
