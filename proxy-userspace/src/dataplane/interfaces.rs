//! The interfaces of this network namespace, by name and index.

use nix::net::if_::{if_indextoname, if_nameindex};

use super::error::{Context, DataplaneError};

/// An interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    /// Its name now.
    pub name: String,
    /// Its index, which it keeps when it is renamed.
    pub index: u32,
}

/// All interfaces, in order of their indices.
///
/// # Errors
/// If the kernel does not tell.
pub fn all() -> Result<Vec<HostInterface>, DataplaneError> {
    let list = if_nameindex().context(|| "listing the network interfaces")?;
    let mut found: Vec<_> = list
        .iter()
        .map(|entry| HostInterface {
            name: entry.name().to_string_lossy().into_owned(),
            index: entry.index(),
        })
        .collect();
    found.sort_unstable_by_key(|interface| interface.index);
    Ok(found)
}

/// The name of an index; `None` if the interface is gone.
pub fn name_of(index: u32) -> Option<String> {
    if_indextoname(index).ok().map(|name| name.to_string_lossy().into_owned())
}
