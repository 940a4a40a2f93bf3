//! The policy: from a TOML file to checked values ([`model`]), and from those to tables.
pub mod model;
