//! Scenario tests through the public interface.
