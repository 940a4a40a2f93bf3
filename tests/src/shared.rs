//! Things that the tests of one file share, and what shall happen when the process ends.
//!
//! Rust never drops a static; what a lab leaves behind would outlive the tests. So the end of the process is
//! hooked, and whatever it shares is dropped there.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

type Task = Box<dyn FnOnce() + Send>;

static AT_EXIT: Mutex<Vec<Task>> = Mutex::new(Vec::new());

/// Runs a task when the process exits, the last one first. A process that is killed runs none: the next lab sweeps.
pub fn at_exit(task: impl FnOnce() + Send + 'static) {
    extern "C" fn run() {
        loop {
            let task = AT_EXIT.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match task {
                Some(task) => task(),
                None => return,
            }
        }
    }
    let mut tasks = AT_EXIT.lock().unwrap_or_else(PoisonError::into_inner);
    if tasks.is_empty() {
        // SAFETY: `run` is a function without captures that does not unwind: a task that panics aborts.
        unsafe { libc::atexit(run) };
    }
    tasks.push(Box::new(task));
}

/// A value that is made by the first test that needs it, used by one at a time and dropped at the end.
#[derive(Debug)]
pub struct Shared<T: Send + 'static> {
    value: Mutex<Option<T>>,
}

impl<T: Send + 'static> Shared<T> {
    /// Nothing made yet.
    #[expect(clippy::new_without_default, reason = "it lives in statics, which need a const function")]
    pub const fn new() -> Self {
        Self { value: Mutex::new(None) }
    }

    /// Uses the value, made by `make` if there is none. While one test uses it the others wait, so that each sees
    /// its own counts. A test that panics does not take the value away from the others.
    pub fn with<R>(
        &'static self,
        make: impl FnOnce() -> Result<T>,
        work: impl FnOnce(&mut T) -> Result<R>,
    ) -> Result<R> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        if value.is_none() {
            *value = Some(make()?);
            at_exit(|| drop(self.value.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
        work(value.as_mut().context("it was just made")?)
    }
}
