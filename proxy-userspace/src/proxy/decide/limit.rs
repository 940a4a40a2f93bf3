//! The limit on requests of one source: GCRA in exact nanoseconds over a table of fixed size. Called by [`super::request`].
