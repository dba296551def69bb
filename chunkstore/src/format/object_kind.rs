//! What a chunk holds, how it is stored, and what a pack holds.
