//! Scenario tests through the public interface.

mod architecture;
mod clock_jumps;
mod concurrency;
mod cost;
mod damage;
mod diff;
mod flip;
mod golden;
mod image_reader;
mod model;
mod overlay;
mod own_process;
mod quarantine;
mod regressions;
mod repack;
mod repair;
mod rescue;
mod rescue_tree;
mod restore;
mod retention;
mod sample;
mod scale;

mod schedules;
mod scrub;
mod sizes;
mod space;
mod thin;
mod tree_restore;
mod trust;
mod whisper;
