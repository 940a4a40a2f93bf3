//! What a firewall holds of the kernel: pins, programs, and what its daemon has open. Kernel objects live by nothing else, so
//! what is the same before and after has leaked nothing, whatever other firewalls do on this machine meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapInfo;
use aya::programs::loaded_programs;

use crate::Tollgate;

/// A reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Paths of all pins and folders, below the folder of pins.
    pub pins: BTreeSet<String>,
    /// How many programs use one of the maps that outlive policies, by name.
    pub programs: BTreeMap<String, usize>,
    /// How many BPF maps, programs and links the daemon has open, by kind.
    pub open: BTreeMap<String, usize>,
}

impl Holdings {
    /// Reads them.
    pub fn of(tollgate: &Tollgate) -> Result<Self> {
        let mut pins = BTreeSet::new();
        list(tollgate.pins(), tollgate.pins(), &mut pins).context("listing the pins")?;
        let shared = shared_maps(tollgate)?;
        let mut programs = BTreeMap::new();
        // One that ends meanwhile is none.
        for program in loaded_programs().filter_map(Result::ok) {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|id| shared.contains(id)) {
                *programs.entry(program.name_as_str().unwrap_or("?").to_owned()).or_default() += 1;
            }
        }
        let mut open = BTreeMap::new();
        if let Some(pid) = tollgate.pid() {
            for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
                let Ok(target) = fs::read_link(entry.path()) else { continue };
                let target = target.to_string_lossy().into_owned();
                if target.starts_with("anon_inode:bpf") {
                    *open.entry(target).or_default() += 1;
                }
            }
        }
        Ok(Self { pins, programs, open })
    }
}

/// Ids of the maps that outlive policies.
fn shared_maps(tollgate: &Tollgate) -> Result<BTreeSet<u32>> {
    let folder = tollgate.pins().join("shared");
    if !folder.exists() {
        return Ok(BTreeSet::new());
    }
    let id = |entry: io::Result<fs::DirEntry>| {
        let path = entry?.path();
        Ok(MapInfo::from_pin(&path).with_context(|| path.display().to_string())?.id())
    };
    fs::read_dir(folder)?.map(id).collect()
}

fn list(root: &Path, folder: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        found.insert(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        if path.is_dir() {
            list(root, &path, found)?;
        }
    }
    Ok(())
}
