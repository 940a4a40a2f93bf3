//! Ends all enforcement: the only thing that does. Called by `tollgate detach`; needs no daemon.

use super::apply::detach_interface;
use super::error::DataplaneError;
use super::interfaces::name_of;
use super::pins::Pins;
use super::shared::check_identity;

/// Takes every program off its hook and removes all state; gives the names of the interfaces that were enforced.
///
/// # Errors
/// If the pins are not ours, or something can't be removed; what was removed until then is gone.
pub fn detach(pins: &Pins) -> Result<Vec<String>, DataplaneError> {
    check_identity(pins)?;
    let mut names = Vec::new();
    for index in pins.interfaces() {
        names.extend(name_of(index));
        detach_interface(pins, index)?;
    }
    pins.remove_all()?;
    Ok(names)
}
