//! What the worker, and the client of authorities, give up before they read the first byte of a stranger: root, every capability, the file system, and the system
//! calls that programs are taken over with.
//!
//! Called once by [`super::worker`] and [`super::acme::client`], before it has a second thread: what is given up here holds for all that come after.
//! A worker that can't give up its rights does not serve.

use std::collections::BTreeMap;
use std::io;

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetStatus};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{User, geteuid, setgroups, setresgid, setresuid, setsid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// What can go wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// There is no such user.
    #[error("there is no user {0}: create it, or name another as `user` of [proxy]")]
    NoUser(String),
    /// It is root.
    #[error("the proxy does not serve as root: name another user as `user` of [proxy]")]
    Root,
    /// A step failed.
    #[error("{step}: {why}")]
    Step {
        /// What was attempted.
        step: &'static str,
        /// What the system said.
        why: String,
    },
    /// Something is left.
    #[error("capabilities are left: {0:#x}")]
    Left(u64),
}

fn step<E: ToString>(step: &'static str) -> impl FnOnce(E) -> PrivilegeError {
    move |why| PrivilegeError::Step { step, why: why.to_string() }
}

/// The user that a worker is to run as.
///
/// # Errors
/// If there is none of that name, or it is root.
pub fn user(name: &str) -> Result<User, PrivilegeError> {
    let found = User::from_name(name).map_err(step("looking for the user"))?;
    let user = found.ok_or_else(|| PrivilegeError::NoUser(name.to_owned()))?;
    if user.uid.is_root() { Err(PrivilegeError::Root) } else { Ok(user) }
}

/// What is left of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Nothing can be opened.
    None,
    /// What everybody may read can be read; nothing can be written, made, removed or executed.
    Readable,
}

/// Becomes that user, for good, and gives up what no proxy needs. Says what this kernel could not give.
///
/// # Errors
/// If anything of it fails; the process must not serve then.
pub fn give_up(name: &str, files: Files) -> Result<Vec<&'static str>, PrivilegeError> {
    let user = user(name)?;
    // Away from the daemon's terminal, and from the signals of its keys. What fails is that it is away already.
    let _ = setsid();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(step("the limit of descriptors"))?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(step("the limit of descriptors"))?;
    // Keys must not end up in a core file.
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(step("core files"))?;
    if geteuid().is_root() {
        setgroups(&[user.gid]).map_err(step("leaving root's groups"))?;
        setresgid(user.gid, user.gid, user.gid).map_err(step("leaving root's group"))?;
        setresuid(user.uid, user.uid, user.uid).map_err(step("leaving root"))?;
    }
    // Becoming another user has set it to what the host's default is.
    nix::sys::prctl::set_dumpable(false).map_err(step("core files"))?;
    nix::sys::prctl::set_no_new_privs().map_err(step("no new privileges"))?;
    let status = procfs::process::Process::myself().and_then(|me| me.status());
    let status = status.map_err(step("looking at what is left"))?;
    let left = status.capeff | status.capprm | status.capinh | status.capamb.unwrap_or_default();
    if left != 0 {
        return Err(PrivilegeError::Left(left));
    }
    let mut missing = Vec::new();
    if !leave_file_system(files).map_err(step("leaving the file system"))? {
        missing.push("this kernel has no Landlock: this process sees the file system as its user does");
    }
    leave_system_calls().map_err(step("the filter of system calls"))?;
    Ok(missing)
}

/// Nothing but those can be opened from here on, by Landlock (Linux 5.13). False: this kernel has none.
fn leave_file_system(files: Files) -> Result<bool, landlock::RulesetError> {
    let refused = match files {
        Files::None => AccessFs::from_all(ABI::V1),
        Files::Readable => AccessFs::from_write(ABI::V1) | AccessFs::Execute,
    };
    let rules = Ruleset::default().handle_access(refused)?.create()?;
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

/// System calls by which a process becomes more than it is, or reaches what is not its own. They fail with EPERM; the rest is
/// what a runtime, TLS and sockets need, on whatever libc.
fn refused() -> Vec<i64> {
    vec![
        // Other programs, other processes.
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        // The kernel itself.
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_syslog,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_settimeofday,
        libc::SYS_adjtimex,
        // Other views of the system.
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_setns,
        libc::SYS_unshare,
        libc::SYS_open_by_handle_at,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_personality,
        // Who it is.
        libc::SYS_setuid,
        libc::SYS_setgid,
        libc::SYS_setreuid,
        libc::SYS_setregid,
        libc::SYS_setresuid,
        libc::SYS_setresgid,
        libc::SYS_setgroups,
        libc::SYS_setfsuid,
        libc::SYS_setfsgid,
        libc::SYS_capset,
    ]
}

/// Threads are made by clone(2) too: refused is what makes a namespace, where the caller would have every capability.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<_>> = refused().into_iter().map(|number| (number, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = flag.cast_unsigned().into();
        let has = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![has])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    compiled(rules, libc::EPERM)
}

/// A filter can't look at what clone3(2) is to do, which stands in memory: it is as if this kernel had none (ENOSYS), and C libraries
/// make threads by clone(2) then.
fn filter_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    compiled(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn compiled(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let refused = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// What is refused to this thread, and those that it makes, from here on.
fn leave_system_calls() -> seccompiler::Result<()> {
    seccompiler::apply_filter(&filter()?)?;
    seccompiler::apply_filter(&filter_clone3()?)
}

/// The system's word that a process has nothing left; for those who look at a worker from outside.
///
/// # Errors
/// If the process can't be looked at.
pub fn is_harmless(pid: i32) -> io::Result<bool> {
    let status = procfs::process::Process::new(pid).and_then(|one| one.status()).map_err(io::Error::other)?;
    let user = status.ruid != 0 && status.euid != 0 && status.suid != 0 && status.fuid != 0;
    let group = status.rgid != 0 && status.egid != 0 && !status.groups.contains(&0);
    let powers = status.capeff | status.capprm | status.capinh | status.capamb.unwrap_or_default();
    Ok(user && group && powers == 0 && status.nonewprivs == Some(1) && status.seccomp == Some(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_compiles_and_root_is_refused() {
        assert!(filter().expect("a filter").len() > refused().len());
        assert!(matches!(user("root"), Err(PrivilegeError::Root)));
        let error = user("no-such-user").expect_err("no user").to_string();
        assert!(error.contains("no-such-user") && error.contains("[proxy]"), "{error}");
    }

    #[test]
    fn threads_can_be_made_and_namespaces_can_not() {
        let refused = std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().expect("set");
            leave_system_calls().expect("filters");
            let errno = |outcome: i64| (outcome, io::Error::last_os_error().raw_os_error());
            let clone = |flag: i32| {
                // SAFETY: with CLONE_NEWUSER and the like alone it makes a process like fork(2); it is refused before that, which is
                // what is tested.
                let outcome = unsafe { libc::syscall(libc::SYS_clone, i64::from(flag), 0, 0, 0, 0) };
                if outcome == 0 {
                    // SAFETY: in a child that should not be.
                    unsafe { libc::_exit(0) };
                }
                errno(outcome)
            };
            let clones: Vec<_> = NAMESPACES.into_iter().map(clone).collect();
            // SAFETY: without arguments it does nothing but fail.
            let clone3 = errno(unsafe { libc::syscall(libc::SYS_clone3, 0, 0) });
            // SAFETY: as above.
            let unshare = errno(unsafe { libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) });
            (clones, clone3, unshare, std::thread::spawn(|| 7).join().expect("a thread"))
        });
        let (clones, clone3, unshare, made) = refused.join().expect("no panic");
        for (flag, outcome) in NAMESPACES.iter().zip(clones) {
            assert_eq!(outcome, (-1, Some(libc::EPERM)), "{flag:#x}");
        }
        assert_eq!((clone3, unshare, made), ((-1, Some(libc::ENOSYS)), (-1, Some(libc::EPERM)), 7));
    }

    #[test]
    fn this_very_process_is_not_harmless() {
        assert!(!is_harmless(std::process::id() as i32).expect("looked at"));
    }
}
