//! What of an upstream's answer goes to the client. Called by the worker's connections for each answer.

use http::response::Parts;

use super::{Asked, Reason, RouteState};

/// Makes an upstream's head into what the client gets, or says why it can't ([`Reason::UpstreamInvalid`]).
///
/// # Errors
/// If it can't be passed on.
pub fn response(route: &RouteState, asked: &Asked, head: &mut Parts) -> Result<(), Reason> {
    let _ = (route, asked, head);
    unimplemented!()
}
