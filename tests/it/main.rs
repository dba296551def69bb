//! Scenario tests through the public interface.

mod crash;
mod faults;
mod flip;
