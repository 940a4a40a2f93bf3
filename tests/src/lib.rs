//! The lab and its tests.
