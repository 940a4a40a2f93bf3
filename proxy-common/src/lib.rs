//! What the kernel programs and the daemon both mean.
#![no_std]
