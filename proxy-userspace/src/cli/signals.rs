//! The wish to end, of commands that go on until they are told: SIGINT, SIGTERM and SIGHUP as something to ask for, so that they
//! clean up. Called by `monitor` and `top`.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From here on the first such signal is only noted, and ends a wait; a second one of its kind ends the process as ever, in
/// case that it hangs.
///
/// # Errors
/// If the kernel refuses.
pub fn hold() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        ASKED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler stores to an atomic, which is allowed at any point of a program.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("holding {signal} back"))?;
    }
    Ok(())
}

/// True if one came.
pub fn is_asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
