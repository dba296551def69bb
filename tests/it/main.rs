//! Scenario tests through the public interface.

mod architecture;
mod concurrency;
mod cost;
mod crash;
mod damage;
mod faults;
mod flip;
mod golden;
mod model;
mod regressions;
mod rescue;
mod restore;
mod retention;
mod scale;
mod sizes;
mod trust;
