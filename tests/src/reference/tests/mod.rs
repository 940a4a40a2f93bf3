//! What the page and the RFCs say, asked of the reference itself.

mod audit;
mod build;
mod flows;
mod fragments;
mod frames;
mod limits;
mod policies;
