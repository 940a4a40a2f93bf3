//! When the process has no descriptors left: nobody is taken, nothing breaks, and it goes on when there are some again.

use std::fs::File;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::backend::{Backend, a_moment, says};
use crate::client::{GET, Wire};
use crate::stage::Stage;

/// Set in the process whose descriptors are few.
const FEW: &str = "TOLLGATE_TEST_FEW_DESCRIPTORS";

#[test]
fn without_descriptors_nobody_is_taken_until_there_are_some_again() {
    if std::env::var_os(FEW).is_some() {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(with_few());
        return;
    }
    // The limit is the process's, and other tests need theirs.
    let name = "descriptors::without_descriptors_nobody_is_taken_until_there_are_some_again";
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program).args(["--exact", name]).env(FEW, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

async fn with_few() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).expect("a lower one");
    let backend = Backend::that(says("hello")).await;
    let stage = Stage::before(backend.address);
    let mut before = Wire::to(stage.address).await;
    assert_eq!(before.ask(GET).await.status, 200);

    let mut taken = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(error) => break error,
        }
    };
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EMFILE as i32));
    // One for the client's own end.
    taken.pop();
    let mut after = Wire::to(stage.address).await;
    after.send(GET).await;
    a_moment().await;
    assert_eq!(stage.service.snapshot().accepted, 1);
    // Those that are there are served.
    assert_eq!(before.ask(GET).await.status, 200);

    drop(taken);
    assert_eq!(after.reply().await.status, 200);
    assert_eq!(stage.service.snapshot().accepted, 2);
    assert!(stage.service.snapshot().reasons.is_empty());
}
