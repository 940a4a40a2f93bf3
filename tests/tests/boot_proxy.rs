//! The L7 proxy under a real systemd, with the files that ship: a restart, a newer program and a crash refuse nobody, and what is in
//! flight is answered.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tollgate_tests::lab::SERVER_V4;
use tollgate_tests::machine::{Machine, unit, until};
use tollgate_tests::services::HttpServer;
use tollgate_tests::{Host, Lab};

const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a long answer, and how many a second: it is in flight for two seconds.
const LONG: &str = "/big?bytes=2000000&rate=1000000";
const POLICY: &str = "version = 1\n[interfaces.wlp2s0]\n[services.web]\nports = [\"tcp/80\"]\nallow = \"any\"\n\
                      [proxy]\naccess-log = \"/var/log/tollgate/access.log\"\n[listeners.web]\nbind = \":80\"\n\
                      [upstreams.app]\nservers = \"127.0.0.1:8000\"\n[routes.app]\nlisteners = \"web\"\nto = \"app\"\n";

/// One request on a connection of its own: the answer's head and body.
fn ask(lab: &Lab, path: &str) -> Result<String> {
    let at = SocketAddr::new(SERVER_V4.parse().context("an address")?, 80);
    lab.ns(Host::Lan).in_ns(|| {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n")
            .context("sending")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("reading after {answer:?}"))?;
        Ok(answer)
    })
}

/// The process that serves clients: the child of the daemon that runs as another user.
fn worker(machine: &Machine) -> Result<String> {
    Ok(machine.run(&["pgrep", "-u", "nobody", "-f", "proxy-worker"])?.trim().to_owned())
}

#[test]
fn neither_a_restart_nor_a_newer_program_nor_a_crash_refuses_anybody() -> Result<()> {
    let lab = Lab::new()?;
    let _app = HttpServer::start(&lab.ns(Host::Server), "127.0.0.1:8000")?;
    let drop_in = fs::read_to_string(unit().with_file_name("proxy.conf"))?;
    let machine = Machine::boot(&lab, POLICY, &drop_in)?;
    until("the proxy to serve", || Ok(ask(&lab, "/").is_ok_and(|answer| answer.contains("port 8000"))))
        .with_context(|| machine.journal())?;
    let first = worker(&machine)?;
    ensure!(!first.contains('\n'), "one process serves: {first}");

    let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let end = |name: &str| {
        machine.run(&["systemctl", "kill", &format!("--signal={name}"), "--kill-whom=main", "tollgate"])
    };
    thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while !over.load(Ordering::Relaxed) {
                        let answer = ask(&lab, "/")?;
                        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                        asked.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                    }
                    Ok(())
                })
            })
            .collect();
        let changes = || -> Result<()> {
            let long = scope.spawn(|| ask(&lab, LONG));
            thread::sleep(Duration::from_millis(500));
            machine.run(&["systemctl", "restart", "tollgate"])?;
            let answer =
                long.join().map_err(|_| anyhow!("a client panicked"))?.context("in flight at the restart")?;
            let (_, body) = answer.split_once("\r\n\r\n").context("no head")?;
            ensure!(body.len() == 2_000_000, "{} bytes of what was in flight", body.len());
            until("another process to serve", || Ok(worker(&machine)? != first))?;

            machine.run(&[
                "cp",
                "--remove-destination",
                "/usr/local/bin/tollgate",
                "/usr/local/bin/newer",
            ])?;
            machine.run(&["mv", "/usr/local/bin/newer", "/usr/local/bin/tollgate"])?;
            machine.run(&["systemctl", "restart", "tollgate"])?;
            end("KILL")?;
            machine.until_unit(&[("NRestarts", "1"), ("ActiveState", "active")])?;
            // Some more of the ordinary after all that.
            let before = asked.load(Ordering::Relaxed);
            until("more answers", || Ok(asked.load(Ordering::Relaxed) > before + 20))
        };
        let changed = changes();
        over.store(true, Ordering::Relaxed);
        for one in asking {
            one.join().map_err(|_| anyhow!("a client panicked"))?.with_context(|| machine.journal())?;
        }
        changed.with_context(|| machine.journal())
    })?;
    ensure!(asked.load(Ordering::Relaxed) > 100, "only {} were asked", asked.load(Ordering::Relaxed));
    // Of the file that the daemon opened, the worker writes lines.
    let log = machine.run(&["cat", "/var/log/tollgate/access.log"])?;
    ensure!(log.lines().count() > 100, "the log has {} lines", log.lines().count());
    Ok(())
}
