//! Ends all enforcement: the only thing that does. Called by `tollgate detach`; needs no daemon.

use super::apply::detach_interface;
use super::error::DataplaneError;
use super::interfaces::with_index;
use super::pins::Pins;
use super::shared::check_identity;

/// Takes every program off its hook and removes all state; gives the names of the interfaces that were enforced.
///
/// # Errors
/// If the pins are not ours, or something can't be removed; what was removed until then is gone.
pub fn detach(pins: &Pins) -> Result<Vec<String>, DataplaneError> {
    check_identity(pins)?;
    // Not signed: whatever is there, nothing of it is enforced by us.
    if !pins.shared_map("IDENTITY").exists() {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for index in pins.interfaces() {
        names.extend(with_index(index)?.map(|interface| interface.name));
        detach_interface(pins, index)?;
    }
    pins.remove_all()?;
    Ok(names)
}
