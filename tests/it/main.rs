//! Scenario tests through the public interface.

mod crash;
mod damage;
mod faults;
mod flip;
